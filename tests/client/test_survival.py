"""What a caller sees of a connection that breaks: one outcome a call, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dragoman import ChildExited, Client, Context, DeadlineExceeded, LinkError, Server
from dragoman.client.supervisor import ConnectionEvent, Reconnect
from dragoman.client.targets import connector_for
from dragoman.errors import CannotStart, HttpError, SessionLost
from dragoman.model.tools import ToolAnnotations
from dragoman.testing import FaultyConnector, FaultyLink
from dragoman.transport.base import About
from tests.instant import run_instantly
from tests.support import run

SERVER = """
import asyncio, os, pathlib, sys
from dragoman import Server

here = pathlib.Path(__file__).parent
if (here / "broken").exists():
    print("API_KEY missing", file=sys.stderr)
    sys.exit(7)
server = Server("s")

@server.tool
async def pid() -> int:
    return os.getpid()

@server.tool
async def crash() -> None:
    with open(here / "crashes", "a") as file:
        file.write("x")
    print("out of luck", file=sys.stderr, flush=True)
    os._exit(3)

@server.tool
async def hang() -> None:
    (here / "hangs").touch()
    await asyncio.Event().wait()

server.run()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    return path


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def pid_of(client: Client) -> int:
    return int((await client.call_tool("pid")).text)


async def seen(path: Path) -> None:
    while not path.exists():
        await asyncio.sleep(0.005)


# --- children -------------------------------------------------------------------------------------


def test_a_child_that_crashes_is_started_again(script: Path) -> None:
    events: list[ConnectionEvent] = []

    async def main() -> None:
        async with Client(script, on_connection=events.append) as client:
            first = await pid_of(client)
            with pytest.raises(ChildExited) as crashed:
                await client.call_tool("crash")
            assert crashed.value.sent is None
            assert crashed.value.exit_code == 3
            assert "out of luck" in crashed.value.stderr_tail
            second = await pid_of(client)
            assert second != first
            assert not is_alive(first)
        assert not is_alive(second)

    run(main())
    assert [event.kind for event in events] == ["lost", "retrying", "restored"]
    assert isinstance(events[0].error, ChildExited)


def test_a_child_that_is_killed_loses_only_what_was_under_way(script: Path) -> None:
    async def main() -> None:
        async with Client(script) as client:
            pid = await pid_of(client)
            hanging = asyncio.ensure_future(client.call_tool("hang"))
            await seen(script.parent / "hangs")
            os.kill(pid, signal.SIGKILL)
            outcomes = await asyncio.gather(
                hanging, client.list_tools(), client.ping(), return_exceptions=True
            )
            assert isinstance(outcomes[0], ChildExited)
            assert outcomes[0].sent is None
            assert list(outcomes[1:]) == [await client.list_tools(), None]

    run(main())


def test_a_child_that_cannot_start_any_more_is_given_up_with_its_last_words(script: Path) -> None:
    events: list[ConnectionEvent] = []
    policy = Reconnect(max_tries=3, first_delay_s=0.01)

    async def main() -> None:
        async with Client(script, on_connection=events.append, reconnect=policy) as client:
            pid = await pid_of(client)
            (script.parent / "broken").touch()
            os.kill(pid, signal.SIGKILL)
            while client.connection_state != "lost":
                await asyncio.sleep(0.01)
            with pytest.raises(ChildExited) as over:
                await client.ping()
            assert over.value.exit_code == 7
            assert "API_KEY missing" in over.value.stderr_tail
            assert over.value.sent is False
            (script.parent / "broken").unlink()
            await client.connect()
            assert await pid_of(client) != pid

    run(main())
    assert [event.kind for event in events[-3:-1]] == ["retrying", "given_up"]
    assert isinstance(events[-2].error, ChildExited)


def test_what_is_wrong_from_the_start_fails_at_once(script: Path) -> None:
    (script.parent / "broken").touch()
    events: list[ConnectionEvent] = []

    async def main() -> None:
        with pytest.raises(ChildExited) as failed:
            await Client(script, on_connection=events.append).connect()
        assert failed.value.exit_code == 7
        assert "API_KEY missing" in failed.value.stderr_tail
        with pytest.raises(CannotStart):
            await Client(["no-such-program-anywhere"], on_connection=events.append).connect()

    run(main())
    assert events == []


def test_a_call_that_breaks_the_server_each_time_is_not_repeated_for_ever(script: Path) -> None:
    async def main() -> None:
        async with Client(script) as client:
            with pytest.raises(ChildExited) as crashed:
                await client.call_tool("crash", idempotent=True)
            assert crashed.value.sent is None
            await client.ping()

    run(main())
    assert (script.parent / "crashes").read_text() == "xxx"


@pytest.mark.parametrize("target", ["child", "memory"])
def test_a_client_is_entered_in_one_task_and_left_in_another(target: str, script: Path) -> None:
    async def main() -> None:
        client = Client(script if target == "child" else small()[0])
        await asyncio.create_task(client.__aenter__())
        await asyncio.create_task(client.ping())
        if target == "child":
            os.kill(await pid_of(client), signal.SIGKILL)
        await asyncio.create_task(client.list_tools())
        await asyncio.create_task(client.__aexit__(None, None, None))
        assert client.connection_state == "closed"

    run(main())


def test_a_break_never_reaches_a_task_group_as_anything_but_the_error(script: Path) -> None:
    async def main() -> None:
        async with Client(script) as client:
            errors: list[BaseException] = []
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(client.call_tool("crash"))
                    group.create_task(client.ping())
            except* LinkError as failed:
                errors += failed.exceptions
            assert [type(error) for error in errors] == [ChildExited]
            await client.ping()

    run(main())


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_cancelling_whoever_holds_a_child_leaves_no_process_and_no_file_behind(
    script: Path,
) -> None:
    async def scenario(pids: list[int]) -> None:
        async with Client(script, on_stderr=lambda line: None) as client:
            pids.append(await pid_of(client))
            os.kill(pids[-1], signal.SIGKILL)
            pids.append(await pid_of_next(client, pids[-1]))
            await client.call_tool("hang")

    async def pid_of_next(client: Client, last: int) -> int:
        # The kill may be noticed after the next call.
        while True:
            try:
                if (pid := await pid_of(client)) != last:
                    return pid
            except LinkError:
                continue

    async def main() -> None:
        files = open_files()
        for wait_s in (0.0, 0.02, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5):
            pids: list[int] = []
            task = asyncio.ensure_future(scenario(pids))
            await asyncio.sleep(wait_s)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not any(map(is_alive, pids))
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert open_files() == files
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    run(main())


# --- what is repeated -----------------------------------------------------------------------------


class LosingLink(FaultyLink):
    """A link that loses requests one by one, as its connector has them queued."""

    def send(self, frame: bytes, about: About = None, is_answer: bool = False) -> None:
        queued = self._owner.queued  # type: ignore[attr-defined]
        is_request = isinstance(about, int) and self.is_awaited(about) and not is_answer
        if not is_request or not queued or b'"initialize"' in frame:
            super().send(frame, about, is_answer)
            return
        error = queued.pop(0)
        if error.sent is not False:
            super().send(frame, about, is_answer)
        asyncio.get_running_loop().call_later(0.01, self._fail, about, error)

    def _fail(self, ident: About, error: LinkError) -> None:
        assert isinstance(ident, int)
        self.request_lost(ident, error)
        if isinstance(error, SessionLost):
            self.cut(error)


class Losing(FaultyConnector):
    """Opens such links."""

    queued: list[LinkError]

    async def connect(self) -> FaultyLink:
        link = await super().connect()
        return LosingLink(link.inner, self, link._clock, 0)


def small() -> tuple[Server, Counter[str]]:
    server = Server("small")
    ran: Counter[str] = Counter()

    def tool(name: str, annotations: ToolAnnotations | None = None) -> None:
        async def run() -> str:
            ran[name] += 1
            await asyncio.sleep(1)
            return name

        server.tool(name, annotations=annotations)(run)

    tool("plain")
    tool("reads", ToolAnnotations(read_only_hint=True))
    tool("same", ToolAnnotations(idempotent_hint=True))
    tool("neither", ToolAnnotations(read_only_hint=False, idempotent_hint=False))
    return server, ran


class Held:
    """A client whose requests can be lost; what its server ran, and what the user was told."""

    def __init__(self, **options: Any) -> None:
        server, self.ran = small()
        self.connector = Losing(connector_for(server))
        self.connector.queued = []
        self.events: list[str] = []
        self.client = Client(
            self.connector,
            on_connection=lambda event: self.events.append(event.kind),
            **{"reconnect": Reconnect(jitter=0.0), **options},
        )

    def lose(self, *errors: LinkError) -> None:
        self.connector.queued += errors


@asynccontextmanager
async def held(**options: Any) -> AsyncIterator[Held]:
    it = Held(**options)
    async with it.client:
        yield it


def lost(sent: bool | None) -> LinkError:
    return LinkError("lost", sent=sent)


def http(status: int, sent: bool | None = False, retry_after_s: float | None = None) -> HttpError:
    return HttpError(
        f"status {status}", sent=sent, url="u", status=status, retry_after_s=retry_after_s
    )


@pytest.mark.parametrize("sent", [None, True])
def test_a_call_that_may_have_run_is_not_repeated(sent: bool | None) -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(lost(sent))
            with pytest.raises(LinkError) as failed:
                await it.client.call_tool("plain")
            assert failed.value.sent is sent
            assert it.ran["plain"] == 1

    run_instantly(main())


def test_a_call_that_certainly_did_not_run_is_repeated() -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(lost(False), lost(False))
            assert (await it.client.call_tool("plain")).data == "plain"
            assert it.ran["plain"] == 1

    run_instantly(main())


def test_a_call_that_may_run_twice_is_repeated() -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(lost(None), lost(False), lost(True))
            assert (await it.client.call_tool("plain", idempotent=True)).data == "plain"
            assert it.ran["plain"] == 3
            await it.client.list_tools()
            it.lose(lost(True))
            await it.client.list_tools()

    run_instantly(main())


@pytest.mark.parametrize(
    ("tool", "trusts", "is_listed", "is_repeated"),
    [
        ("reads", True, True, True),
        ("same", True, True, True),
        ("neither", True, True, False),
        ("plain", True, True, False),
        ("reads", True, False, False),
        ("reads", False, True, False),
        ("same", False, True, False),
    ],
)
def test_what_a_server_says_of_its_tools_counts_when_it_is_trusted(
    tool: str, trusts: bool, is_listed: bool, is_repeated: bool
) -> None:
    async def main() -> None:
        async with held(trusts_annotations=trusts, check_output=False) as it:
            if is_listed:
                await it.client.list_tools()
            it.lose(lost(None))
            if is_repeated:
                assert (await it.client.call_tool(tool)).text == tool
            else:
                with pytest.raises(LinkError):
                    await it.client.call_tool(tool)
            assert it.ran[tool] == 1 + is_repeated

    run_instantly(main())


def test_the_outcome_speaks_for_all_attempts_together() -> None:
    async def main() -> None:
        async with held(reconnect=Reconnect(max_tries=2, jitter=0.0)) as it:
            it.lose(lost(False), lost(None))
            with pytest.raises(LinkError) as failed:
                await it.client.call_tool("plain")
            assert failed.value.sent is None
            # The last attempt certainly did not run, and the first may have.
            it.lose(lost(None), lost(False), lost(False))
            with pytest.raises(LinkError) as failed:
                await it.client.call_tool("plain", idempotent=True)
            assert failed.value.sent is None
            it.lose(lost(True), lost(None), lost(False))
            with pytest.raises(LinkError) as failed:
                await it.client.call_tool("plain", idempotent=True)
            assert failed.value.sent is True
            it.lose(*[lost(False)] * 3)
            with pytest.raises(LinkError) as failed:
                await it.client.call_tool("plain")
            assert failed.value.sent is False

    run_instantly(main())


def test_a_request_that_the_link_refuses_is_known_not_to_have_run() -> None:
    async def main() -> None:
        server, ran = small()
        connector = FaultyConnector(connector_for(server))
        async with Client(connector) as client:
            # The end of the link is not known yet when these are made.
            connector.links[0].cut()
            calls = [client.call_tool("plain") for _ in range(3)]
            assert [result.text for result in await asyncio.gather(*calls)] == ["plain"] * 3
        assert ran["plain"] == 3
        async with Client(connector, reconnect=False) as client:
            running = asyncio.ensure_future(client.call_tool("plain"))
            await asyncio.sleep(0.1)
            connector.links[-1].cut()
            late = asyncio.ensure_future(client.call_tool("plain"))
            errors = await asyncio.gather(running, late, return_exceptions=True)
            assert [isinstance(error, LinkError) and error.sent for error in errors] == [
                None,
                False,
            ]

    run_instantly(main())


# --- one request lost, as over HTTP ---------------------------------------------------------------


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 415, 500])
def test_a_status_that_stays_is_not_tried_again(status: int) -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(http(status))
            with pytest.raises(HttpError) as refused:
                await it.client.list_tools()
            assert refused.value.status == status
            # Nobody else is hurt.
            await it.client.list_tools()
        assert it.events == []

    run_instantly(main())


@pytest.mark.parametrize("status", [502, 504])
def test_a_gateway_that_failed_may_have_passed_the_call_on(status: int) -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(http(status, sent=None))
            with pytest.raises(HttpError):
                await it.client.call_tool("plain")
            it.lose(http(status, sent=None))
            await it.client.list_tools()

    run_instantly(main())


def test_a_proxy_without_a_server_behind_it_is_asked_until_there_is_one() -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(*[http(502, sent=None)] * 8)
            assert (await it.client.call_tool("plain", idempotent=True)).data == "plain"
        assert it.events == ["lost", "restored"]

    run_instantly(main())


def test_one_that_asks_for_time_is_given_it() -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(http(429, retry_after_s=20.0))
            began = now()
            await it.client.call_tool("plain")
            assert now() - began == pytest.approx(20.0 + 1.0 + 0.01, abs=0.05)
            # Too often is not the same as not there.
            assert it.events == []

    run_instantly(main())


def test_more_time_than_the_call_has_is_not_waited_for() -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(http(503, retry_after_s=20.0))
            with pytest.raises(HttpError) as busy:
                await it.client.call_tool("plain", timeout_s=5.0)
            assert busy.value.retry_after_s == 20.0
            assert busy.value.sent is False
            assert now() < 1.0

    run_instantly(main())


def test_a_server_that_is_away_for_a_while_is_told_of_once() -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(*[http(503)] * 6)
            calls = [it.client.call_tool("plain") for _ in range(3)]
            await asyncio.gather(*calls)
            assert it.ran["plain"] == 3
            assert it.client.connection_state == "connected"
            await it.client.call_tool("plain")
        assert it.events == ["lost", "restored"]

    run_instantly(main())


def test_a_server_that_stays_away_meets_the_deadline_of_each_call() -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(*[http(503)] * 1_000)
            with pytest.raises(HttpError) as away:
                await it.client.call_tool("plain", timeout_s=30.0)
            assert away.value.sent is False
            assert it.client.connection_state == "reconnecting"
            it.connector.queued.clear()
            await it.client.call_tool("plain")
            assert it.client.connection_state == "connected"
        assert it.events == ["lost", "restored"]

    run_instantly(main())


def test_a_ping_that_is_lost_ends_no_watch() -> None:
    async def main() -> None:
        async with held(keep_alive_s=5.0) as it:
            it.lose(http(503), http(503))
            await asyncio.sleep(7)
            assert it.events == ["lost"]
            assert it.client.connection_state == "reconnecting"
            await asyncio.sleep(10)
            assert it.events == ["lost", "restored"]
            it.lose(http(502))
            await asyncio.sleep(12)
            assert it.events == ["lost", "restored"] * 2

    run_instantly(main())


def test_a_lost_session_is_replaced_and_the_calls_are_made_in_the_new_one() -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(SessionLost(), SessionLost())
            calls = [it.client.call_tool("plain") for _ in range(3)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            done = [one for one in results if not isinstance(one, BaseException)]
            # The third was under way over the same link when it ended.
            assert len(done) == 2
            assert it.ran["plain"] == 3
        assert it.events == ["lost", "retrying", "restored"]

    run_instantly(main())


def test_progress_is_heard_through_every_attempt_and_keeps_a_call_alive() -> None:
    server = Server("slow")

    @server.tool
    async def slow(ctx: Context) -> str:
        for step in range(5):
            await asyncio.sleep(2)
            await ctx.report_progress(step + 1)
        return "done"

    heard: list[float] = []

    async def main() -> None:
        connector = Losing(connector_for(server))
        connector.queued = [lost(False)]
        async with Client(connector) as client:
            result = await client.call_tool(
                "slow", timeout_s=3.0, on_progress=lambda update: heard.append(update.progress)
            )
            assert result.text == "done"
            with pytest.raises(DeadlineExceeded) as late:
                await client.call_tool(
                    "slow", timeout_s=3.0, total_s=7.0, on_progress=lambda update: None
                )
            assert late.value.timeout_s == 7.0

    run_instantly(main())
    assert heard == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("act", ["aclose", "cancel"])
def test_a_call_that_waits_to_be_repeated_ends_with_the_client_or_the_caller(act: str) -> None:
    async def main() -> None:
        async with held() as it:
            it.lose(http(429, retry_after_s=50.0))
            call = asyncio.ensure_future(it.client.call_tool("plain"))
            await asyncio.sleep(1)
            if act == "aclose":
                await it.client.aclose()
                with pytest.raises(LinkError) as ended:
                    await call
                assert ended.value.sent is False
            else:
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            assert now() < 2
            assert it.ran["plain"] == 0

    run_instantly(main())
