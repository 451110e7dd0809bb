"""The table of the attacks, and the figures over all of them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.attacks.harness import ATTACKS, TOTALS, Attack

__all__ = [
    "NUMBERS",
    "Outcome",
    "as_json",
    "as_markdown",
    "figures",
    "import_all",
    "missing",
    "print_table",
]

# Those that have to do with a host.
NUMBERS = (*range(1, 35), 36, *range(38, 50), *range(67, 72))

# Numbers of the list that nothing here can be attacked by, and why.
NOT_OURS = {
    35: ("HTML in the console", "not the host's: there is no console yet"),
    37: ("(no attack has this number)", ""),
    38: ("a private cached list under another token", "not the host's: it keeps no such cache"),
    50: ("(50 to 54: no attack has these numbers)", ""),
    55: ("(55, 60 to 66, 72 to 75: console and gateway)", "not the host's: there are none yet"),
}


def import_all() -> None:
    """Register every attack of this folder."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"tests.attacks.{path.stem}")


def missing() -> list[int]:
    """Numbers with neither a test nor a reason."""
    import_all()
    return [one for one in NUMBERS if one not in ATTACKS and one not in NOT_OURS]


@dataclass(frozen=True)
class Outcome:
    """What became of one attack: how often its tests ran, and where they failed."""

    attack: Attack
    runs: int
    failures: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    @property
    def is_met(self) -> bool:
        """Whether the refusal was met each time."""
        return self.runs > 0 and not self.failures

    @property
    def result(self) -> str:
        """In a word or two."""
        if self.failures:
            return f"{len(self.failures)} FAILED"
        return "met" if self.runs else "NOT RUN"


def figures() -> list[tuple[str, str, bool]]:
    """(what, figure, whether it is as it has to be) over all attacks that ran."""
    t = TOTALS
    return [
        _zero("unauthorised actions", t.unauthorised, f"{t.reached} messages that reached servers"),
        _share("mediation coverage", t.reached - t.uncovered, t.reached, "messages"),
        _share("view fidelity", t.viewed - t.unfaithful, t.viewed, "payloads"),
        _share("drift found", t.mutations - t.mutations_missed, t.mutations, "mutations"),
        _zero("false alarms of drift", t.false_alarms, f"{t.reorderings} reorderings"),
        _zero("prompts asked twice for one decision", t.asked_twice, f"{t.questions} questions"),
        _zero("headless runs past their deadline", t.late, f"{t.headless} runs"),
        _zero("secret canaries found", t.canaries, f"{t.searched} places searched"),
        _zero("processes left behind", t.left_behind, f"{t.attacks} attacks"),
        _zero("broken audit logs", t.broken_audits, f"{t.attacks} attacks"),
    ]


def _zero(what: str, found: int, of: str) -> tuple[str, str, bool]:
    is_any = not of.startswith("0 ")
    return what, f"{found} (of {of})", found == 0 and is_any


def _share(what: str, good: int, whole: int, unit: str) -> tuple[str, str, bool]:
    share = 100.0 * good / whole if whole else 0.0
    # Not rounded up: 99.99 is not 100.
    text = "100 %" if good == whole and whole else f"{min(share, 99.99):.2f} %"
    return what, f"{text} (of {whole} {unit})", good == whole and whole > 0


def as_json(outcomes: Sequence[Outcome], rounds: Sequence[Any]) -> dict[str, Any]:
    """The whole as one document."""
    return {
        "attacks": [
            {
                "number": one.attack.number,
                "attack": one.attack.title,
                "refusal": one.attack.refusal,
                "tests": one.attack.tests,
                "runs": one.runs,
                "failures": list(one.failures),
                "result": one.result,
            }
            for one in outcomes
        ],
        "not the host's": {str(number): " ".join(why) for number, why in NOT_OURS.items()},
        "rounds": [asdict(one) for one in rounds],
        "figures": {what: {"figure": text, "ok": is_ok} for what, text, is_ok in figures()},
    }


def as_markdown() -> str:
    """The rows of docs/attacks.md."""
    import_all()
    rows = {number: (what, why or "-") for number, (what, why) in NOT_OURS.items()}
    rows |= {number: (one.title, one.refusal) for number, one in ATTACKS.items()}
    lines = [f"| {number} | {what} | {said} |" for number, (what, said) in sorted(rows.items())]
    return "\n".join(["| no | attack | what comes of it |", "| --- | --- | --- |", *lines]) + "\n"


def print_table(outcomes: Sequence[Outcome]) -> None:
    """For people."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(title="Attacks on the host")
    table.add_column("no", justify="right")
    table.add_column("attack")
    table.add_column("refusal")
    table.add_column("tests", justify="right")
    table.add_column("runs", justify="right")
    table.add_column("result")
    rows: dict[int, tuple[str, ...]] = {
        number: (str(number), what, why, "", "", "[dim]not the host's[/]")
        for number, (what, why) in NOT_OURS.items()
        if number not in ATTACKS
    }
    for one in outcomes:
        color = "green" if one.is_met else "red"
        rows[one.attack.number] = (
            str(one.attack.number),
            one.attack.title,
            one.attack.refusal,
            str(len(one.attack.tests)),
            str(one.runs),
            f"[{color}]{one.result}[/]",
        )
    for number in sorted(rows):
        table.add_row(*rows[number])
    console.print(table)
    proof = Table(title="Over all of them")
    proof.add_column("what")
    proof.add_column("figure")
    for what, text, is_ok in figures():
        proof.add_row(what, f"[{'green' if is_ok else 'red'}]{text}[/]")
    console.print(proof)
    for one in outcomes:
        for failure in one.failures:
            console.print(f"[red]{one.attack.number}[/] {escape(failure)}", highlight=False)
