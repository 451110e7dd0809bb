"""A folder as resources: reads what is inside of it and nothing else.

dragoman read examples/files_server.py files:///README.md --env FILES_ROOT=.
"""

import mimetypes
import os
from pathlib import Path

from dragoman import ResourceContents, ResourceNotFound, Server, ToolError

ROOT = Path(os.environ.get("FILES_ROOT", ".")).resolve()
# 1 MB: a text that a model can use; anything larger is better searched than read.
MAX_BYTES = 1_000_000

server = Server("files", instructions="Paths are relative to one folder; there is no way out.")


def inside(path: str) -> Path:
    """The file of that name below the folder.

    The template refuses `..` by itself; a symbolic link that leads out is refused here.
    """
    found = (ROOT / path).resolve()
    if not found.is_relative_to(ROOT):
        raise ToolError(f"{path!r} is outside of the folder")
    return found


@server.resource("files:///{+path}")
def read_file(path: str) -> ResourceContents:
    """One file: text as text, anything else as bytes."""
    file = inside(path)
    uri = f"files:///{path}"
    if not file.is_file():
        raise ResourceNotFound(uri)
    if file.stat().st_size > MAX_BYTES:
        raise ToolError(f"{path!r} is larger than {MAX_BYTES:,} bytes")
    data = file.read_bytes()
    kind = mimetypes.guess_type(file.name)[0]
    try:
        return ResourceContents(uri=uri, text=data.decode(), mime_type=kind or "text/plain")
    except UnicodeDecodeError:
        return ResourceContents.of(uri, data, kind)


@server.tool(annotations={"readOnlyHint": True})
def list_files(folder: str = ".", pattern: str = "*") -> list[str]:
    """The files in a folder.

    Args:
        folder: below the root
        pattern: such as "*.md"
    """
    start = inside(folder)
    if not start.is_dir():
        raise ToolError(f"{folder!r} is no folder")
    if "/" in pattern or ".." in pattern:
        raise ToolError("a pattern names files, not folders")
    return sorted(str(one.relative_to(ROOT)) for one in start.glob(pattern) if one.is_file())


if __name__ == "__main__":
    server.run()
