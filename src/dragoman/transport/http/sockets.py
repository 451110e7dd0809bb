"""The sockets that both libraries connect with."""

from __future__ import annotations

import socket
from typing import Any

__all__ = ["AddressInfo", "open_socket"]

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""What getaddrinfo says of one address; the last is what to connect to."""

# After 60 s of silence the system asks whether the other side is there, 4 times every 15 s: routers
# forget a silent connection after five minutes and more. So a stream that nobody holds any more at its
# other end breaks after two minutes, and is taken up again; without this it would be waited on for ever.
SILENT_S = 60
PROBE_EVERY_S = 15
PROBES = 4


def open_socket(address: AddressInfo) -> socket.socket:
    """A socket for one address, not connected, that notices when the other side is gone.

    Raises:
        OSError: there can be none.
    """
    family, kind, protocol, _, _ = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            # macOS calls it by another name.
            ("TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", SILENT_S),
            ("TCP_KEEPINTVL", PROBE_EVERY_S),
            ("TCP_KEEPCNT", PROBES),
            # In ms, and Linux alone: what was sent and not taken is else sent again for a quarter of
            # an hour, and nobody asks meanwhile.
            ("TCP_USER_TIMEOUT", 1_000 * (SILENT_S + PROBES * PROBE_EVERY_S)),
        ):
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except BaseException:
        sock.close()
        raise
    return sock
