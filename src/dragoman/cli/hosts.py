"""What the commands of a host share: which file, which policy, and who is asked."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from dragoman.cli.keyboard import Keyboard
from dragoman.cli.printable import one_line
from dragoman.cli.screen import Screen
from dragoman.client.config import config_paths
from dragoman.errors import Misconfigured

if TYPE_CHECKING:
    from dragoman.cli.approvals import TerminalApprover
    from dragoman.host.config import Input
    from dragoman.host.host import Host
    from dragoman.host.models.base import ChatModel

__all__ = ["HostSettings", "asker", "config_file", "host_options", "stores_told"]

C = TypeVar("C", bound=Callable[..., object])


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSettings:
    """What the options common to these commands say."""

    config: str | None = None
    policy: str | None = None
    rules: Sequence[str] = ()
    state: str | None = None
    is_json: bool = False

    def file(self) -> Path:
        """The mcp.json. Raises Misconfigured: there is none."""
        return config_file(self.config)

    def load(
        self,
        *,
        approver: TerminalApprover | None = None,
        models: Sequence[ChatModel | str] = (),
        may_be_unset: bool = False,
        environ: Mapping[str, str] = os.environ,
    ) -> Host:
        """The host of these settings; nothing is started. Raises as `Host.load`."""
        from dragoman.host.host import Host

        return Host.load(
            self.file(),
            approver=approver,
            rules=self.rules,
            policy=self.policy,
            state=self.state,
            models=models,
            inputs=_ask_input if Screen().is_interactive else None,
            may_be_unset=may_be_unset,
            environ=environ,
        )


def config_file(given: str | None, *, may_be_missing: bool = False) -> Path:
    """The file that is meant: the one given, or the first there is of those that are looked for.

    Raises:
        Misconfigured: there is none, unless it `may_be_missing`: then it is `.mcp.json` here.
    """
    if given is not None:
        # One that is there and is no file is refused by whoever reads it.
        if not may_be_missing and not os.path.exists(given):
            raise Misconfigured(f"there is no file {given}")
        return Path(given)
    paths = config_paths()
    for path in paths:
        if path.is_file():
            return path
    if may_be_missing:
        return paths[0]
    raise Misconfigured(
        f"no servers are configured: looked for {', '.join(map(str, paths))}; "
        "`dragoman host add` writes one, --config names another"
    )


def asker(
    screen: Screen, keyboard: Keyboard, on_asking: Callable[[bool], object] | None = None
) -> TerminalApprover | None:
    """Who is asked: the person, where one is at the terminal; else nobody."""
    if not screen.is_interactive:
        return None
    from dragoman.cli.approvals import TerminalApprover, surface_for

    return TerminalApprover(surface_for(screen, keyboard), on_asking=on_asking, actor=_actor())


def _ask_input(wanted: Input) -> str | None:
    """What the person says to an input of the file; nothing of a password is shown.

    Raises KeyboardInterrupt.
    """
    about = wanted.description or wanted.id
    question = one_line(f"{about} (for ${{input:{wanted.id}}} in the mcp.json)", 300)
    choice = click.Choice(wanted.options) if wanted.options else None
    if wanted.is_password and wanted.default is None:
        question += ", not shown"
    # Nothing else runs yet: Ctrl-C ends the program at once, and does not wait for the loop.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        said: str = click.prompt(
            question,
            default=wanted.default,
            show_default=not wanted.is_password,
            hide_input=wanted.is_password,
            type=choice,
            err=True,
        )
    except click.Abort:
        raise KeyboardInterrupt from None
    finally:
        signal.signal(signal.SIGINT, before)
    return said


def _actor() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


@contextmanager
def stores_told() -> Iterator[None]:
    """A store or a log that cannot be used is something to put right, and told as that."""
    from dragoman.host.audit import AuditFailed
    from dragoman.host.grants import StoreFailed

    try:
        yield
    except (StoreFailed, AuditFailed) as failed:
        raise Misconfigured(str(failed)) from None


_OPTIONS = [
    click.option("--config", metavar="FILE", help="The mcp.json with the servers."),
    click.option("--policy-file", "policy", metavar="FILE", help="In place of your own policy."),
    click.option(
        "--policy",
        "rules",
        multiple=True,
        metavar="RULE",
        help='A rule for this run: "allow tool(git/git_log)". May be repeated.',
    ),
    click.option("--state", metavar="DIR", help="Where grants and the audit log are kept."),
    click.option(
        "--json", "is_json", is_flag=True, help="Print one JSON document, also on errors."
    ),
]


def host_options(function: C) -> C:
    """The options of every command of a host; they arrive as `settings`."""

    def call(
        config: str | None,
        policy: str | None,
        rules: tuple[str, ...],
        state: str | None,
        is_json: bool,
        **more: object,
    ) -> object:
        settings = HostSettings(
            config=config, policy=policy, rules=rules, state=state, is_json=is_json
        )
        with stores_told():
            return function(settings, **more)

    call.__doc__ = function.__doc__
    call.__name__ = function.__name__
    call.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(_OPTIONS):
        call = option(call)
    return call  # type: ignore[return-value]
