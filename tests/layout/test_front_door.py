"""The public names at the front door, pinned in front_door.txt.

After a deliberate change: python -m tests.layout.test_front_door
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import dragoman

PINNED = Path(__file__).parent / "front_door.txt"

# "about 40": more than this, and the small door has become a gate
MOST_NAMES = 48


def test_the_front_door_has_the_pinned_names() -> None:
    assert sorted(dragoman.__all__) == PINNED.read_text().split()


def test_the_front_door_stays_small() -> None:
    assert len(dragoman.__all__) <= MOST_NAMES


@pytest.mark.parametrize("name", dragoman.__all__)
def test_a_public_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(dragoman, name)
    assert inspect.getdoc(value)
    # a traceback and a help page name the module where it is defined
    assert value.__module__.startswith("dragoman.")
    assert value is getattr(__import__(value.__module__, fromlist=[name]), name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        dragoman.no_such_name


if __name__ == "__main__":
    PINNED.write_text("\n".join(sorted(dragoman.__all__)) + "\n")
