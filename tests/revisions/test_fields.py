"""The generated table is what the schemas give."""

from __future__ import annotations

import subprocess
import sys

from dragoman.revisions.fields import MEMBERS, REVISIONS
from dragoman.revisions.registry import DIALECTS
from tests.properties.strategies import RECORDS
from tests.revisions.official import ROOT, SPEC, needs_spec


@needs_spec
def test_the_generated_table_is_current() -> None:
    tool = str(ROOT / "tools" / "generate_fields.py")
    done = subprocess.run(
        [sys.executable, tool, str(SPEC), "--check"], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_table_covers_every_record_and_every_revision() -> None:
    assert set(MEMBERS) == set(RECORDS)
    assert tuple(dialect.wire for dialect in DIALECTS) == REVISIONS


def test_a_place_in_the_table_is_a_revision() -> None:
    positions = "".join(str(dialect.position) for dialect in DIALECTS)
    for members in MEMBERS.values():
        for where in members.values():
            assert where
            assert where in positions or set(where) < set(positions)
