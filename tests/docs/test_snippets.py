"""Every Python block of the README and the docs runs, in its page's order, as a real process."""

from __future__ import annotations

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

# A file of tests is run as one.
PYTEST = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]


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
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        told = done.stdout + done.stderr
        assert done.returncode == 0, f"{page.name}, block {number}:\n{block}\n{told}"


def test_every_link_within_the_docs_leads_somewhere() -> None:
    pages = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs/decisions").glob("*.md"))]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_every_page_is_in_the_list_of_pages() -> None:
    listed = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert [name for name in sorted(there) if f"]({name})" not in listed] == []
