"""PLY files as tables of numbers, for meshes and point clouds.

trimesh's loader is not used because it refuses binary files that mix triangles with larger polygons, reads a truncated
table as an empty one, and leaves vertex colors behind when it splits vertices for a texture.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import MeshError
from .numbers import ranges
from .ply_text import fill_elements
from .text import plain_text

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "int64": "i8", "uint64": "u8",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_HEADER_END = re.compile(rb"(?:\r\n|\r|\n)end_header[ \t]*(\r\n|\r|\n|\Z)")
# Tables that programs write beside a shape and that are no part of it.
_NO_SHAPE = {"camera", "range_grid", "user"}
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass
class PlyProperty:
    """A column: its type, and the type of the length before each row if its rows are lists."""

    name: str
    dtype: np.dtype
    length_dtype: np.dtype | None = None


@dataclass
class PlyElement:
    """A table. `columns` holds (count,) arrays, and (values, lengths) pairs for columns of lists."""

    name: str
    count: int
    properties: list[PlyProperty] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """The columns that hold a number per row, (count,) each, by name."""
        return {name: column for name, column in self.columns.items() if isinstance(column, np.ndarray)}


@dataclass
class PlyFile:
    """The tables of a PLY file and the images that its comments name, in their order."""

    elements: dict[str, PlyElement]
    textures: list[str] = field(default_factory=list)

    def left_out(self, read: Container[str]) -> list[str]:
        """A warning about tables of a shape that were not `read`; there is none for cameras and grids."""
        rows = {name: element.count for name, element in self.elements.items() if element.count}
        left = [f"{name} ({count:,})" for name, count in rows.items() if name not in read and name not in _NO_SHAPE]
        return [f"its tables {', '.join(left)} are left out"] if left else []


def parse_ply(data: bytes, limits: dict[str, int], needed: Sequence[str] = ()) -> PlyFile:
    """Parse a PLY file, ASCII or binary.

    Args:
        data: content of the file.
        limits: largest number of rows of a table, by its name ("vertex", "face").
        needed: tables one of which must have rows, or the rest of the file is not looked at.

    Raises:
        MeshError: "empty" where none of the tables `needed` has rows; "truncated" where the header declares more rows
            than the file can hold, before they are allocated;
            "corrupt" for a row of text that contradicts the header, with the number of its line.
    """
    file, endian, body, first_line = _parse_header(data)
    for element in file.elements.values():
        limit = limits.get(element.name)
        if limit is not None and element.count > limit:
            raise MeshError(
                "too_many_faces" if element.name == "face" else "too_many_points",
                f"its header declares {element.count} rows of {element.name}; at most {limit}",
            )
    if needed and not any(name in file.elements and file.elements[name].count for name in needed):
        raise MeshError("empty", "it holds points but no triangle; read_points reads point clouds")
    _check_size(file, endian, len(body))
    if endian == "":
        fill_elements(list(file.elements.values()), body, first_line)
    else:
        _read_binary(file, body)
    return file


def _parse_header(data: bytes) -> tuple[PlyFile, str, bytes, int]:
    """The declared tables, the byte order ("" for text), the bytes behind the header and the number of their line."""
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data.startswith(b"ply") and data[:64].count(0) > 16:  # UTF-16
        data = plain_text(data)
    end = _HEADER_END.search(data, 0, 2**20)
    if not data.startswith(b"ply") or end is None:
        raise MeshError("corrupt" if data.startswith(b"ply") else "unsupported", "it has no complete PLY header")
    # Where lines end with CR alone, an LF behind the header belongs to the data.
    cr_alone = data[3:4] == b"\r" and data[4:5] != b"\n"
    body = data[end.start(1) + (1 if cr_alone else len(end.group(1))) :]
    header = re.split(rb"\r\n|\r|\n", data[: end.start()])
    file, endian = PlyFile({}), None
    current: PlyElement | None = None
    for raw in header[1:]:
        line = raw.decode("utf-8", errors="replace")
        words = line.split()
        try:
            if not words:
                continue
            if words[0] == "format":
                endian = _FORMATS[words[1]]
            elif words[0] == "comment" and len(words) > 2 and words[1].lower() == "texturefile":
                file.textures.append(line.split(None, 2)[2].strip())
            elif words[0] == "element":
                current = PlyElement(words[1], int(words[2]))
                if current.count < 0:
                    raise ValueError
                file.elements[current.name] = current
            elif words[0] == "property" and current is not None:
                order = endian or "<"
                if words[1] == "list":
                    length_dtype, dtype = (np.dtype(order + _TYPES[word]) for word in words[2:4])
                    current.properties.append(PlyProperty(words[4], dtype, length_dtype))
                else:
                    current.properties.append(PlyProperty(words[2], np.dtype(order + _TYPES[words[1]])))
        except (IndexError, KeyError, ValueError):
            raise MeshError("corrupt", f"its PLY header has the line {line[:80]!r}") from None
    if endian is None:
        raise MeshError("corrupt", "its PLY header declares no format")
    return file, endian, body, len(header) + 2


def _check_size(file: PlyFile, endian: str, available: int) -> None:
    """Refuse a header that declares more than the file can hold; a list may be empty but for its length."""
    needed = 0
    for element in file.elements.values():
        if endian == "":
            row = 2 * len(element.properties)  # a digit and a separator each
        else:
            row = sum((p.length_dtype or p.dtype).itemsize for p in element.properties)
        needed += element.count * row
    if needed > available + 1:
        raise MeshError("truncated", f"its header declares at least {needed} bytes of data and {available} follow")


def _read_binary(file: PlyFile, body: bytes) -> None:
    position = 0
    for element in file.elements.values():
        sizes = _first_lengths(element, body, position) if element.count else {}
        fields: list[Any] = []
        for number, p in enumerate(element.properties):
            if p.length_dtype is not None:
                fields.append((f"length{number}", p.length_dtype))
                fields.append((f"value{number}", p.dtype, (sizes.get(p.name, 0),)))
            else:
                fields.append((f"value{number}", p.dtype))
        row = np.dtype(fields)
        if position + row.itemsize * element.count <= len(body):
            table = np.frombuffer(body, row, element.count, position)
            if all((table[f"length{i}"] == sizes.get(p.name, 0)).all() for i, p in _lists(element)):
                position += row.itemsize * element.count
                for number, p in enumerate(element.properties):
                    values = table[f"value{number}"]
                    if p.length_dtype is None:
                        element.columns[p.name] = values
                    else:
                        lengths = np.full(element.count, values.shape[1])
                        element.columns[p.name] = (values.reshape(-1), lengths)
                continue
        if not _lists(element):
            raise _cut_off(element)
        position = _walk_binary(element, body, position)


def _lists(element: PlyElement) -> list[tuple[int, PlyProperty]]:
    return [(i, p) for i, p in enumerate(element.properties) if p.length_dtype is not None]


def _first_lengths(element: PlyElement, body: bytes, position: int) -> dict[str, int]:
    """Lengths of the lists in an element's first row."""
    sizes = {}
    for p in element.properties:
        if p.length_dtype is None:
            position += p.dtype.itemsize
            continue
        if position + p.length_dtype.itemsize > len(body):
            raise _cut_off(element)
        size = int(np.frombuffer(body, p.length_dtype, 1, position)[0])
        position += p.length_dtype.itemsize + size * p.dtype.itemsize
        if size < 0 or position > len(body):
            raise _cut_off(element)
        sizes[p.name] = size
    return sizes


def _walk_binary(element: PlyElement, body: bytes, position: int) -> int:
    """As `_walk`, on bytes: note where each value stands, then gather each column at once."""
    places: dict[str, list[int]] = {p.name: [] for p in element.properties}
    lengths: dict[str, list[int]] = {p.name: [] for p in element.properties}
    for _ in range(element.count):
        for p in element.properties:
            size = 1
            if p.length_dtype is not None:
                width = p.length_dtype.itemsize
                order = "big" if p.length_dtype.byteorder == ">" else "little"
                size = int.from_bytes(body[position : position + width], order)  # type: ignore[arg-type]
                position += width
            places[p.name].append(position)
            lengths[p.name].append(size)
            position += size * p.dtype.itemsize
            if position > len(body):
                raise _cut_off(element)
    raw = np.frombuffer(body, np.uint8)
    for p in element.properties:
        count = np.array(lengths[p.name])
        start = np.array(places[p.name])
        # First byte of each value.
        at = np.repeat(start, count) + ranges(np.zeros_like(start), count) * p.dtype.itemsize
        values = np.ascontiguousarray(raw[at[:, None] + np.arange(p.dtype.itemsize)]).view(p.dtype)[:, 0]
        element.columns[p.name] = values if p.length_dtype is None else (values, count)
    return position


def _cut_off(element: PlyElement) -> MeshError:
    return MeshError("truncated", f"its {element.name} table declares {element.count} rows and is cut off")
