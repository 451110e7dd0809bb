"""Roots as paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from dragoman.model.roots import Root


def test_a_root_is_a_path_of_this_machine(tmp_path: Path) -> None:
    folder = tmp_path / "a b é"
    folder.mkdir()
    assert Root(uri=folder.as_uri()).path == folder


@pytest.mark.parametrize("uri", ["https://x.example/a", "a", ""])
def test_what_is_no_file_uri_has_no_path(uri: str) -> None:
    with pytest.raises(ValueError, match="file URI"):
        Root(uri=uri).path


def test_a_root_holds_what_lies_in_it_and_nothing_that_leads_out(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "door").symlink_to(outside)
    root = Root(uri=inside.as_uri())
    assert root.holds(inside)
    assert root.holds(inside / "a" / "b")
    assert root.holds(str(inside / "a" / ".." / "b"))
    assert not root.holds(outside)
    assert not root.holds(inside / "..")
    assert not root.holds(inside / "door" / "x")
    # a neighbour whose name begins the same
    assert not root.holds(tmp_path / "inner")
