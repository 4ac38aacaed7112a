"""What a file of a commit holds, a piece at a time: a checkpoint may be larger than what memory is left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PIECE = 64 << 20
"""Bytes. A part of an upload has as many, of which S3 takes 10,000."""

Content = bytes | Path
"""Itself, or the file that has it."""


def pieces(content: Content) -> Iterator[bytes | memoryview]:
    """In order, of at most `PIECE` bytes; none of an empty one. OSError where the file cannot be read."""
    if isinstance(content, Path):
        with content.open("rb") as handle:
            while piece := handle.read(PIECE):
                yield piece
    else:
        view = memoryview(content)
        yield from (view[first : first + PIECE] for first in range(0, len(view), PIECE))


def size(content: Content) -> int:
    """Bytes."""
    return content.stat().st_size if isinstance(content, Path) else len(content)
