"""Tables, targets and the progress line: coloured with rich where it is installed, plain otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.environments import FLOOR, MCP, OURS
from bench.metrics import AGAINST_FLOOR, BASES, BY_KEY, METRICS, SECTIONS, TARGETS, Results

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Table
    from rich.text import Text

    RICH = True
except ImportError:
    RICH = False


#: What stands around the figures in docs/benchmarks.md.
MARKERS = ("<!-- figures: begin -->", "<!-- figures: end -->")


def machine() -> str:
    """The processor, cores, load and interpreters, in a line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    try:
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        node_version = node.stdout.strip().removeprefix("v")
    except (OSError, subprocess.CalledProcessError):
        node_version = "none"
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, load {load:.1f}, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, node {node_version}"
    )


class Steps:
    """A progress bar on stderr, or a line a section where there is no terminal."""

    def __init__(self, total: int) -> None:
        self._bar: Any = None
        self._section = ""
        if RICH and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("[bold]{task.description:<36}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Steps:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str) -> None:
        """One step begins."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, description=what)
            return
        section = what.partition(":")[0]
        if section != self._section:
            self._section = section
            print(f"measuring {section}", file=sys.stderr, flush=True)


def show(results: Results, sections: Sequence[str], order: Sequence[str]) -> None:
    """All tables, then what failed, then the targets."""
    out = _Writer()
    for section in sections:
        columns, rows = _table(results, section, order)
        out.table(SECTIONS[section], BASES.get(section, MCP), columns, rows)
        for label, by_library in results.failures.items():
            if label.partition(" ")[0] == section:
                for name, why in by_library.items():
                    out.note(f"{name}, {label}: {_short(why)}")
    for note in _notes(results):
        out.note(note)
    rows_of_targets = _targets(results)
    if rows_of_targets:
        out.targets(rows_of_targets)


def write_markdown(
    path: Path, line: str, results: Results, sections: Sequence[str], order: Sequence[str]
) -> None:
    """Put the tables between the two markers of a Markdown page; the rest of it stays.

    Raises `ValueError` when the page has no markers.
    """
    page = path.read_text("utf-8")
    if MARKERS[0] not in page or MARKERS[1] not in page:
        raise ValueError(f"{path} lacks {MARKERS[0]} or {MARKERS[1]}")
    lines = ["", f"Taken on {time.strftime('%Y-%m-%d')}: {line}.", ""]
    for section in sections:
        columns, rows = _table(results, section, order)
        if not rows:
            continue
        lines += [f"### {SECTIONS[section]}", ""]
        lines += ["| | " + " | ".join(columns) + " |", "|---|" + "--:|" * len(columns)]
        for name, cells in rows:
            texts = [f"{value} ({ratio})" if ratio else value for value, ratio in cells]
            lines.append(f"| {name} | " + " | ".join(texts) + " |")
        lines.append("")
    lines += [f"{note}.\n" for note in _notes(results)]
    lines += ["### Targets", "", "| | what | wanted | measured |", "|---|---|---|---|"]
    for what, wanted, measured, good in _targets(results):
        lines.append(f"| {'met' if good else 'MISSED'} | {what} | {wanted} | {measured} |")
    head, _, rest = page.partition(MARKERS[0])
    tail = rest.partition(MARKERS[1])[2]
    body = "\n".join([*lines, ""])
    path.write_text(f"{head}{MARKERS[0]}\n{body}{MARKERS[1]}{tail}", "utf-8")


Row = tuple[str, list[tuple[str, str]]]


def _table(results: Results, section: str, order: Sequence[str]) -> tuple[list[str], list[Row]]:
    """Headings, and for each library its figures with their ratio to mcp, or what stands for it."""
    metrics = [one for one in METRICS if one.section == section]
    against = BASES.get(section, MCP)
    # Those that are no library come in the order in which they were measured.
    seen = list(dict.fromkeys(n for one in metrics for n in results.samples.get(one.key, {})))
    names = [name for name in order if name in seen] + [name for name in seen if name not in order]
    rows: list[Row] = []
    for name in names:
        cells = []
        for one in metrics:
            value = results.median(one.key, name)
            base = results.median(one.key, against)
            if value is None:
                cells.append(("-", ""))
                continue
            ratio = _ratio(value / base) if base and name != against else ""
            cells.append((one.show(value), ratio))
        rows.append((name, cells))
    return [one.title for one in metrics], rows


def _notes(results: Results) -> list[str]:
    floor = []
    for key in AGAINST_FLOOR:
        own, base = results.median(key, OURS), results.median(key, FLOOR)
        if own and base:
            factor = base / own if BY_KEY[key].more_is_better else own / base
            floor.append(f"{BY_KEY[key].section}, {BY_KEY[key].title}: {factor:.2f}")
    notes = [f"{OURS} costs this many times the floor: {'; '.join(floor)}"] if floor else []
    return notes + results.notes


def _targets(results: Results) -> list[tuple[str, str, str, bool]]:
    rows = []
    for target in TARGETS:
        measured = target.measured(results)
        if measured is not None:
            unit = "" if target.against is None else "x" if target.part is None else " of it"
            rows.append((target.what, target.wanted, f"{measured:.3g}{unit}", target.met(measured)))
    return rows


def _short(why: str) -> str:
    lines = [line for line in why.splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return lines[0][:220] + (f" … {lines[-1].strip()[:160]}" if len(lines) > 1 else "")


def _ratio(value: float) -> str:
    """``1/25``, ``0.31x``, ``2.4x`` or ``115x``."""
    if value < 0.1:
        return f"1/{1 / value:.0f}" if value > 0 else ""
    return f"{value:.0f}x" if value >= 10 else f"{value:.2g}x"


class _Writer:
    """Writes to stdout with rich, or with spaces."""

    def __init__(self) -> None:
        if RICH:
            # A file or a pipe has no width of its own: as wide as the widest table.
            width = None if sys.stdout.isatty() else 140
            self._console = Console(width=width, highlight=False)

    def note(self, text: str) -> None:
        if RICH:
            self._console.print(Text(text, style="dim"))
        else:
            print(text)

    def table(
        self,
        title: str,
        against: str,
        columns: Sequence[str],
        rows: Sequence[tuple[str, Sequence[tuple[str, str]]]],
    ) -> None:
        if not rows:
            return
        if not RICH:
            print(f"\n{title}  (x: against {against})")
            print("  ".join([" " * 24, *(f"{one:>24}" for one in columns)]))
            for name, cells in rows:
                texts = [f"{value} {ratio}".strip() for value, ratio in cells]
                print("  ".join([f"{name:<24}", *(f"{one:>24}" for one in texts)]))
            return
        self._console.print(
            Text(f"\n{title}", style="bold"), Text(f"(x: {against} is 1)", style="dim")
        )
        table = Table(box=None)
        table.add_column("")
        for one in columns:
            table.add_column(one, justify="right")
        for name, cells in rows:
            style = "bold green" if name == OURS else "cyan" if name == FLOOR else ""
            values = []
            for value, ratio in cells:
                cell = Text(value)
                if ratio:
                    cell.append(f" {ratio:>6}", style="dim")
                values.append(cell)
            table.add_row(Text(name, style=style), *values)
        self._console.print(table)

    def targets(self, rows: Sequence[tuple[str, str, str, bool]]) -> None:
        met = sum(1 for row in rows if row[3])
        title = f"\nTargets: {met} of {len(rows)} met"
        if not RICH:
            print(title)
            for what, wanted, measured, good in rows:
                print(f"{'met   ' if good else 'MISSED'}  {what:<36}{wanted:<44}{measured}")
            return
        self._console.print(Text(title, style="bold"))
        table = Table(box=None)
        for heading in ("", "what", "wanted", "measured"):
            table.add_column(heading)
        for what, wanted, measured, good in rows:
            verdict = Text("met", style="green") if good else Text("MISSED", style="bold red")
            table.add_row(verdict, what, wanted, measured)
        self._console.print(table)
