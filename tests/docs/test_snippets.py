"""Every Python block of the README and the docs runs, in its page's order, as a real process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Blocks marked `py` are fragments: shown, not run.
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# ([\w-]+\.py)\n")

# Runs a file as an import would: what stands under `if __name__ == "__main__"` is left out.
LOAD = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='page')"

# A file of tests is run as one, by pytest alone: plugins that happen to be here are not its readers'.
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def own_files(folder: Path) -> dict[str, str]:
    """Variables that keep what a block writes about its user in this folder."""
    return {"XDG_STATE_HOME": str(folder / "state"), "XDG_CONFIG_HOME": str(folder / "config")}


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda p: p.name)
def test_every_block_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page)):
        named = FILE_NAME.match(block)
        path = tmp_path / (named.group(1) if named else f"block_{number}.py")
        path.write_text(block, encoding="utf-8")
        how = PYTEST if path.name.startswith("test_") else ["-c", LOAD]
        done = subprocess.run(
            [sys.executable, "-W", "error", *how, str(path)],
            cwd=tmp_path,
            env=os.environ | own_files(tmp_path) | ALONE,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        told = done.stdout + done.stderr
        assert done.returncode == 0, f"{page.name}, block {number}:\n{block}\n{told}"


LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)]*))?\)")


def anchors(page: Path) -> set[str]:
    """What a link may name on a page: its headings, as they are written in addresses."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", one.lower()).strip().replace(" ", "-") for one in headings}


def test_every_link_within_the_docs_leads_somewhere() -> None:
    pages = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs/decisions").glob("*.md"))]
    broken = []
    for page in pages:
        for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
            path = page.parent / target if target else page
            if "://" in target:
                continue
            if not path.exists() or (anchor and anchor not in anchors(path)):
                broken.append(f"{page.name}: {target}#{anchor}")
    assert broken == []


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert [name for name in sorted(there) if f"]({name})" not in listed] == []
