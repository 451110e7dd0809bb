"""Content blocks as lines, and as files that never overwrite and never leave their folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dragoman import (
    AudioContent,
    EmbeddedResource,
    ImageContent,
    ResourceContents,
    ResourceLink,
    TextContent,
)
from dragoman.cli.blocks import Saver, block_text, summary
from dragoman.errors import Misconfigured
from dragoman.model.content import ContentBlock, SamplingBlock, ToolResultContent, ToolUseContent

BYTES = bytes(1500)


@pytest.mark.parametrize(
    ("block", "line"),
    [
        (TextContent(text="a\nb"), "a\nb"),
        (ImageContent.of(BYTES), "[image image/png, 1,500 bytes]"),
        (AudioContent.of(BYTES), "[audio audio/wav, 1,500 bytes]"),
        (ImageContent(data="no!", mime_type="image/png"), "[image image/png, which is not base64]"),
        (
            ResourceLink(uri="x://y", name="n", mime_type="text/plain", description="d\x1b"),
            "[link to x://y (n, text/plain): d\\x1b]",
        ),
        (EmbeddedResource(resource=ResourceContents(uri="x://y", text="t")), "t"),
        (
            EmbeddedResource(resource=ResourceContents.of("x://y", b"123")),
            "[x://y: of no stated type, 3 bytes]",
        ),
    ],
)
def test_a_block_is_its_text_or_one_line_about_it(block: ContentBlock, line: str) -> None:
    assert block_text(block) == line


@pytest.mark.parametrize(
    ("block", "line"),
    [
        (TextContent(text="t"), "t"),
        (ImageContent.of(BYTES), "[image image/png, 1,500 bytes]"),
        (AudioContent.of(BYTES), "[audio audio/wav, 1,500 bytes]"),
        (ToolUseContent(id="1", name="f", input={"a": 1}), '[uses f {"a":1}]'),
        (
            ToolResultContent(tool_use_id="1", content=[TextContent(text="r")], is_error=True),
            "[failure of 1] r",
        ),
    ],
)
def test_a_sampling_block_is_its_text_or_one_line_about_it(block: SamplingBlock, line: str) -> None:
    assert summary(block) == line


def test_files_are_new_and_named_after_what_they_are_of(tmp_path: Path) -> None:
    saver = Saver(tmp_path / "new" / "folder", "odd://a/../b?c")
    first = saver.save(b"1", "image/png")
    second = saver.save(b"2", "image/png; q=1")
    assert [first.name, second.name] == ["odd-a-b-c-1.png", "odd-a-b-c-2.png"]
    assert first.read_bytes() == b"1"
    assert saver.save(b"3", "application/x-unheard/../of").name == "odd-a-b-c-1.bin"
    assert saver.save(b"4", None).name == "odd-a-b-c-2.bin"


@pytest.mark.parametrize("stem", ["", "..", "/", "../../x", "\x00"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, stem: str) -> None:
    assert Saver(tmp_path, stem).save(b"", None).parent == tmp_path


def test_a_folder_that_takes_no_files_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="file"):
        Saver(tmp_path / "file", "x").save(b"", None)


def test_a_block_that_is_saved_says_where(tmp_path: Path) -> None:
    line = block_text(ImageContent.of(BYTES), Saver(tmp_path, "pic"))
    assert line == f"[image image/png, 1,500 bytes, saved as {tmp_path / 'pic-1.png'}]"
