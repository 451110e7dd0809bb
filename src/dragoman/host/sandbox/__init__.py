"""Confining a server that is started here, with bubblewrap.

What a confined server sees: the system's programs and libraries (read only), its own program, the
paths its settings name, its roots, an empty home and an empty /tmp of its own. It sees no other
process and, unless it declares the network, nobody but itself at the other end of a socket. With a
list of hosts it reaches those, each through a gatekeeper in the host that connects for it.

A server that asks for a sandbox never runs without one.
"""

from __future__ import annotations

from dragoman.host.sandbox.bubblewrap import Confined, confine, find_bubblewrap
from dragoman.host.sandbox.connector import starter
from dragoman.host.sandbox.declared import Root, Sandbox, read_sandbox, shown_path

__all__ = [
    "Confined",
    "Root",
    "Sandbox",
    "confine",
    "find_bubblewrap",
    "read_sandbox",
    "shown_path",
    "starter",
]
