"""Text of strangers made safe to print: the command line's name for what `model.unseen` does."""

from __future__ import annotations

from dragoman.model.unseen import compact_json, json_text, one_line, printable

__all__ = ["compact_json", "json_text", "one_line", "printable"]
