"""What is logged of a peer that breaks the protocol, and how little of a flood."""

from __future__ import annotations

import logging

import pytest

from dragoman.model.methods import Side
from dragoman.protocol.events import Event, Fault, FaultKind
from dragoman.runtime.fault_log import BURST, FaultLog
from dragoman.testing import ManualClock
from tests.protocol.aids import cancelled
from tests.requirements.duties import duty
from tests.runtime.aids import Handlers, facing_script, run, turns

LOG = logging.getLogger("dragoman.test")


def junk(number: int = 0) -> Fault:
    return Fault(FaultKind.UNREADABLE, f"no {number}")


@duty("trust.practices")
def test_of_a_flood_of_faults_the_first_are_logged_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "dragoman")
    clock = ManualClock()
    faults = FaultLog(Side.SERVER, clock)
    for number in range(5_000):
        faults.write(LOG, junk(number))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == BURST
    assert said[0] == "the client broke the protocol: a frame that is no message (no 0)"
    clock.advance(1.0)
    faults.write(LOG, junk(5_000))
    faults.write(LOG, junk(5_001))
    said = [record.getMessage() for record in caplog.records][BURST:]
    assert said == [
        f"{5_000 - BURST} more faults of the client were not logged",
        "the client broke the protocol: a frame that is no message (no 5000)",
    ]
    faults.close()
    faults.close()
    assert caplog.records[-1].getMessage() == "1 more faults of the client were not logged"
    assert len(caplog.records) == BURST + 3


@pytest.mark.parametrize(
    ("side", "kind", "level"),
    [
        (Side.SERVER, FaultKind.STRAY_CANCEL, logging.DEBUG),
        (Side.CLIENT, FaultKind.STRAY_CANCEL, logging.DEBUG),
        (Side.SERVER, FaultKind.UNKNOWN_METHOD, logging.DEBUG),
        (Side.CLIENT, FaultKind.UNKNOWN_METHOD, logging.WARNING),
        (Side.SERVER, FaultKind.STRAY_ANSWER, logging.WARNING),
    ],
)
def test_what_happens_between_peers_that_do_nothing_wrong_is_no_warning(
    side: Side, kind: FaultKind, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "dragoman")
    faults = FaultLog(side, ManualClock())
    for _ in range(3):
        faults.write(LOG, Fault(kind, "x"))
    assert [record.levelno for record in caplog.records] == [level] * 3


def test_each_connection_has_its_own_count_and_tells_the_rest_at_its_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "dragoman")
    handlers = Handlers()

    async def main() -> None:
        async with facing_script(Side.SERVER, handlers) as (driver, peer):

            def write(event: Event) -> None:
                if isinstance(event, Fault):
                    driver.faults.write(LOG, event)

            handlers.on_event = write
            for _ in range(BURST + 30):
                peer.send(b"junk")
            # A cancellation that comes too late is counted nowhere.
            peer.send(cancelled(99))
            await turns()

    for _ in range(2):
        caplog.clear()
        handlers.events.clear()
        run(main())
        assert len(handlers.of(Fault)) == BURST + 31, "the handler hears of each"
        said = [record.getMessage() for record in caplog.records if "fault" in record.getMessage()]
        assert said == ["30 more faults of the client were not logged"]
        assert len(caplog.records) == BURST + 1
