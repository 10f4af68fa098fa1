"""Text as programs on all systems write it, brought to one form before it is parsed."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Sequence

import numpy as np

from .errors import MeshError

# UTF-32 LE starts as UTF-16 LE does, so the longer marks come first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PEEK = 4096
MAX_LINE = 2**16


def plain_text(data: bytes) -> bytes:
    """The bytes of a text file with `\\n` as line end and one byte for each ASCII letter.

    A byte-order mark goes, UTF-16 and UTF-32 become UTF-8 (UTF-16 also without a mark, by its NULs), CR and CRLF
    become LF, and NULs and Ctrl-Z at the end go. Letters outside ASCII stay as they are: no format here gives them a
    meaning in numbers or keywords.

    Raises:
        MeshError: "unsupported" for what holds other NULs, and so is binary; "corrupt" for broken UTF-16.
    """
    encoding = "utf-8"
    for mark, name in _MARKS:
        if data.startswith(mark):
            data, encoding = data[len(mark) :], name
            break
    else:
        encoding = _unmarked(data)
    if encoding != "utf-8":
        try:
            data = data.decode(encoding).encode()
        except UnicodeError:
            raise MeshError("corrupt", f"it is text in {encoding.upper()} that cannot be decoded") from None
    data = data.rstrip(b"\0\x1a")
    if b"\0" in data:
        raise MeshError("unsupported", "it is binary data, not text")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data


def check_lines(data: bytes) -> None:
    """Refuses a line longer than any in a table of numbers, before anything makes a list of its words."""
    position = 0
    while len(data) - position > MAX_LINE:
        end = data.rfind(b"\n", position, position + MAX_LINE + 1)
        if end < 0:
            number = data.count(b"\n", 0, position) + 1
            raise MeshError("corrupt", f"its line {number} has more than {MAX_LINE} characters")
        position = end + 1


def lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines with the places where they begin, one at a time: a list of all would be many times the file."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        yield start, data[start:end]
        start = end + 1


def load_table(
    body: bytes, max_rows: int, columns: Sequence[int] | None = None, separator: bytes | None = None
) -> np.ndarray:
    """(N, C) float64 of rows of numbers; blank lines are passed over.

    Args:
        columns: those to be read; all of them without.
        separator: of the cells; blanks without.

    Raises:
        MeshError: "too_many_points", before memory is taken for them.
        ValueError: a cell that is no number, or rows of different lengths.
    """
    if body.count(b"\n") >= max_rows:  # then it is worth a closer look
        rows = sum(1 for _, line in lines(body) if line.strip())
        if rows > max_rows:
            raise MeshError("too_many_points", f"it holds {rows} points; at most {max_rows}")
    if not body.strip():
        return np.zeros((0, 0))
    return np.loadtxt(
        io.BytesIO(body),
        comments=None,
        delimiter=None if separator is None else separator.decode(),
        quotechar='"',
        usecols=columns,
        ndmin=2,
        encoding="latin-1",
    )


def _unmarked(data: bytes) -> str:
    """UTF-16 without a mark shows in plain letters whose other byte is NUL; else UTF-8, of which ASCII is a part."""
    head = data[: _PEEK & ~1]
    even, odd = head[0::2], head[1::2]
    if len(head) >= 4 and head.count(0) * 2 >= len(head) - 2:
        if not any(even) and all(odd):
            return "utf-16-be"
        if not any(odd) and all(even):
            return "utf-16-le"
    return "utf-8"
