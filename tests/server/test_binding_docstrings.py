"""Descriptions of parameters, from docstrings in the three common styles."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.server.docstrings import Docstring, parse_docstring

GOOGLE = """Tell the weather.

    Uses the national service: slow at night.

    Args:
        city (str): where to look,
            by its local name
        days (int, optional): how far ahead
        *rest: ignored
        **more: too

    Returns:
        A forecast.

    Raises:
        ValueError: never

    Note:
        Kept for the caller.
    """

NUMPY = """Tell the weather.

    Parameters
    ----------
    city : str
        where to look,
        by its local name
    days, weeks : int, optional
        how far ahead

    Returns
    -------
    str
        A forecast.

    Notes
    -----
    Kept for the caller.
    """

SPHINX = """Tell the weather.

    :param city: where to look,
        by its local name
    :param int days: how far ahead
    :type days: int
    :returns: a forecast,
        in words
    :raises ValueError: never
    """


def test_google_style_is_read() -> None:
    said = parse_docstring(inspect.cleandoc(GOOGLE))
    assert said.parameters == {
        "city": "where to look, by its local name",
        "days": "how far ahead",
        "rest": "ignored",
        "more": "too",
    }
    assert said.description == (
        "Tell the weather.\n\nUses the national service: slow at night.\n\n"
        "Note:\n    Kept for the caller."
    )


def test_numpy_style_is_read() -> None:
    said = parse_docstring(inspect.cleandoc(NUMPY))
    assert said.parameters == {
        "city": "where to look, by its local name",
        "days": "how far ahead",
        "weeks": "how far ahead",
    }
    assert said.description == "Tell the weather.\n\nNotes\n-----\nKept for the caller."


def test_sphinx_style_is_read() -> None:
    said = parse_docstring(inspect.cleandoc(SPHINX))
    assert said.parameters == {
        "city": "where to look, by its local name",
        "days": "how far ahead",
    }
    assert said.description == "Tell the weather."


@pytest.mark.parametrize(
    "text",
    [
        "One line.",
        "Takes arguments:\n\nnot a section, since nothing below is indented.",
        "A list:\n  - args: these\n  - more",
    ],
)
def test_prose_in_no_style_is_all_description(text: str) -> None:
    assert parse_docstring(text) == Docstring(text)


@pytest.mark.parametrize("text", [None, "", "  \n "])
def test_no_docstring_says_nothing(text: str | None) -> None:
    assert parse_docstring(text) == Docstring()


def test_a_docstring_of_parameters_only_has_no_description() -> None:
    assert parse_docstring("Args:\n    x: a thing") == Docstring(None, {"x": "a thing"})


@given(
    st.lists(
        st.sampled_from([*GOOGLE.splitlines(), *NUMPY.splitlines(), *SPHINX.splitlines(), "\t:"])
    ).map("\n".join)
)
def test_any_mixture_of_lines_is_read_without_error(text: str) -> None:
    said = parse_docstring(text)
    assert said.description is None or said.description.strip() == said.description
