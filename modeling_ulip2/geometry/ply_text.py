"""The rows of an ASCII PLY file, one per line; an error names the line that contradicts the header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import MeshError
from .numbers import is_number, parse_numbers, ranges
from .text import plain_text

if TYPE_CHECKING:
    from .ply import PlyElement, PlyProperty

# Programs write colors as fractions under an integer type, and NaN where they have none; `PlyElement.colors` decides.
_COLORS = {
    prefix + name
    for prefix in ("", "diffuse_", "ambient_", "specular_")
    for name in ("red", "green", "blue", "alpha", "r", "g", "b", "a")
}


def fill_elements(elements: list[PlyElement], body: bytes, first_line: int) -> None:
    """Fill the columns of the elements from the text behind the header, whose first line has number `first_line`.

    Raises:
        MeshError: "truncated" where the text ends too early, "corrupt" for a row that has other numbers than declared.
    """
    lines = plain_text(body).split(b"\n")
    numbers = np.arange(first_line, first_line + len(lines))
    if any(not line or line.isspace() for line in lines):
        filled = [bool(line) and not line.isspace() for line in lines]
        numbers = numbers[filled]
        lines = [line for line, good in zip(lines, filled, strict=True) if good]
    begin = 0
    for element in elements:
        rows = lines[begin : begin + element.count]
        if len(rows) < element.count:
            raise MeshError("truncated", f"its {element.name} table declares {element.count} rows and has {len(rows)}")
        own = numbers[begin : begin + element.count]
        begin += element.count
        _read_element(element, rows, own, last=begin >= len(lines))
    if begin < len(lines):
        raise MeshError("corrupt", f"line {numbers[begin]} stands behind the last row that its header declares")


def _read_element(element: PlyElement, rows: list[bytes], numbers: np.ndarray, last: bool) -> None:
    """Args: `numbers`, (count,) the line of each row; `last`, whether the text ends with these rows."""
    widths = np.fromiter(map(len, map(bytes.split, rows)), dtype=np.int64, count=len(rows))
    values = parse_numbers(b"\n".join(rows))
    if values is None or len(values) != widths.sum():
        row = next(i for i, line in enumerate(rows) if not all(map(is_number, line.split())))
        raise MeshError("corrupt", f"line {numbers[row]} holds words that are no numbers: {_shown(rows[row])}")
    ends = np.cumsum(widths)
    place = ends - widths  # (count,) of the next number of each row
    plan: list[tuple[PlyProperty, np.ndarray, np.ndarray | None]] = []
    for p in element.properties:
        short = np.flatnonzero(place >= ends)
        if len(short):
            raise _wrong_width(element, rows, numbers, int(short[0]), last, "fewer")
        if p.length_dtype is None:
            plan.append((p, place, None))
            place = place + 1
            continue
        lengths = values[place]
        broken = np.flatnonzero(~((lengths >= 0) & (lengths == np.floor(lengths))))
        if len(broken):
            raise MeshError(
                "corrupt",
                f"line {numbers[broken[0]]} has a list {p.name!r} of {lengths[broken[0]]:g} values: "
                f"{_shown(rows[broken[0]])}",
            )
        short = np.flatnonzero(lengths > ends - place - 1)
        if len(short):
            raise _wrong_width(element, rows, numbers, int(short[0]), last, "fewer")
        plan.append((p, place + 1, lengths.astype(np.int64)))
        place = place + 1 + lengths.astype(np.int64)
    long = np.flatnonzero(place < ends)
    if len(long):
        raise _wrong_width(element, rows, numbers, int(long[0]), last, "more")
    for p, starts, counts in plan:
        at = starts if counts is None else ranges(starts, counts)
        column = values[at]
        if p.dtype.kind in "iu":
            column = _integers(column, p, counts, rows, numbers)
        element.columns[p.name] = column if counts is None else (column, counts)


def _integers(
    values: np.ndarray, p: PlyProperty, counts: np.ndarray | None, rows: list[bytes], numbers: np.ndarray
) -> np.ndarray:
    info = np.iinfo(p.dtype)
    fits = (values == np.floor(values)) & (values >= info.min) & (values <= info.max)
    if fits.all():
        return values.astype(p.dtype)
    fraction = np.isnan(values) | ((values >= 0) & (values <= 1))
    if counts is None and p.name.lower() in _COLORS and (fits | fraction).all():
        return values
    first = int(np.flatnonzero(~fits)[0])
    row = first if counts is None else int(np.searchsorted(np.cumsum(counts), first, side="right"))
    raise MeshError(
        "corrupt",
        f"line {numbers[row]} has {values[first]:g} for {p.name!r}, which its header declares as {p.dtype.name}: "
        f"{_shown(rows[row])}",
    )


def _wrong_width(
    element: PlyElement, rows: list[bytes], numbers: np.ndarray, row: int, last: bool, what: str
) -> MeshError:
    cut_off = last and what == "fewer" and row == len(rows) - 1
    return MeshError(
        "truncated" if cut_off else "corrupt",
        f"line {numbers[row]} has {what} numbers than its header declares for a row of {element.name}: "
        f"{_shown(rows[row])}",
    )


def _shown(line: bytes) -> str:
    return repr(line[:60].decode(errors="replace"))
