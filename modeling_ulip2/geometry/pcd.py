"""PCD, the format of the Point Cloud Library, version 0.6 and 0.7: ASCII, binary and compressed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .cloud import PointCloud, check_count, valid_rows
from .columns import named_cloud
from .errors import MeshError
from .lzf import decompress
from .text import check_lines, load_table, plain_text

_MAX_HEADER = 2**16
_MAX_NUMBERS = 10_000  # a point
_DTYPES = {
    "F4": "<f4", "F8": "<f8", "I1": "i1", "I2": "<i2", "I4": "<i4", "I8": "<i8", "U1": "u1", "U2": "<u2", "U4": "<u4",
    "U8": "<u8",
}  # fmt: skip
_PACKED = ("rgb", "rgba")


@dataclass
class _Field:
    name: str
    dtype: np.dtype
    count: int  # numbers per point

    @property
    def size(self) -> int:
        return self.dtype.itemsize * self.count


def read_pcd(data: bytes, max_points: int) -> PointCloud:
    """The cloud in a PCD file, in the sensor's frame; `VIEWPOINT` is not applied.

    Points that the file marks as invalid, by NaN, are left out with a warning. Colors are the field `rgb` or `rgba`,
    four bytes in one number, also where that number is declared as a float.
    """
    fields, points, kind, body, warnings = _parse_header(data)
    check_count(points, max_points)
    if points == 0:
        raise MeshError("empty", "it holds no point")
    if kind == "ascii":
        columns = _read_ascii(fields, points, plain_text(body))
    elif kind == "binary":
        columns = _read_binary(fields, points, body)
    elif kind == "binary_compressed":
        columns = _read_compressed(fields, points, body)
    else:
        raise MeshError("unsupported", f"its data are {kind[:40]!r}; ascii, binary and binary_compressed are read")
    if columns.keys() >= set("xyz"):
        valid = valid_rows([columns[name] for name in "xyz"], warnings)
        columns = {name: column[valid] for name, column in columns.items()}
    packed = next((name for name in _PACKED if name in columns), None)
    if packed is not None:
        colors = _unpack(columns[packed], from_text=kind == "ascii")
        if colors is None:
            warnings.append("its colors are packed into floats that text cannot hold (NaN), and were left out")
        else:
            columns |= dict(zip(("red", "green", "blue"), colors, strict=True))
    return named_cloud(columns, warnings)


def _parse_header(data: bytes) -> tuple[list[_Field], int, str, bytes, list[str]]:
    """Fields, number of points, kind of data, the data, and what is to be warned of."""
    entries: dict[str, list[str]] = {}
    position = 0
    while "DATA" not in entries:
        end = data.find(b"\n", position, _MAX_HEADER)
        if end < 0:
            known = "FIELDS" in entries
            raise MeshError("corrupt" if known else "unsupported", "it has no complete PCD header")
        words = data[position:end].decode("utf-8", errors="replace").split()
        position = end + 1
        if words and not words[0].startswith("#"):
            entries[words[0].upper()] = words[1:]
    try:
        names, sizes, types = entries["FIELDS"], entries["SIZE"], entries["TYPE"]
        counts = [int(word) for word in entries.get("COUNT", ["1"] * len(names))]
        fields = [
            _Field(name.lower(), np.dtype(_DTYPES[kind.upper() + size]), count)
            for name, size, kind, count in zip(names, sizes, types, counts, strict=True)
        ]
        grid = [int(entries[name][0]) for name in ("WIDTH", "HEIGHT") if name in entries]
        points = int(entries["POINTS"][0]) if "POINTS" in entries else grid[0] * grid[1]
        (kind,) = entries["DATA"]
    except (KeyError, IndexError, ValueError) as error:
        raise MeshError("corrupt", f"its PCD header is broken ({type(error).__name__}: {str(error)[:80]})") from None
    if not fields or min(counts) < 0 or sum(counts) > _MAX_NUMBERS or points < 0:
        raise MeshError("corrupt", "its PCD header declares fields or points that cannot be")
    if len(grid) == 2 and grid[0] * grid[1] != points:
        raise MeshError("corrupt", f"its header declares {points} points and {grid[0]} x {grid[1]} of them")
    return fields, points, kind.lower(), data[position:], _viewpoint(entries.get("VIEWPOINT", []))


def _viewpoint(words: list[str]) -> list[str]:
    """A warning unless the sensor's pose, a translation and a quaternion w x y z, turns nothing."""
    try:
        turn = [float(word) for word in words[3:7]]
    except ValueError:
        turn = []
    if len(turn) < 4 or not any(turn[1:]):
        return []
    return ["its points are in the frame of the sensor, which its VIEWPOINT turns; that turn is not applied"]


def _read_ascii(fields: list[_Field], points: int, body: bytes) -> dict[str, np.ndarray]:
    width = sum(field.count for field in fields)
    check_lines(body)
    try:
        table = load_table(body, points)
    except ValueError as error:
        if isinstance(error, MeshError):
            raise MeshError("corrupt", f"its header declares {points} points; more follow") from None
        raise MeshError("corrupt", f"its rows are not all {width} numbers ({error})") from None
    if len(table) < points:
        raise MeshError("truncated", f"its header declares {points} points; {len(table)} follow")
    if table.shape[1] != width:
        raise MeshError("corrupt", f"its header declares {width} numbers per point; its rows have {table.shape[1]}")
    starts = np.cumsum([0, *(field.count for field in fields)])
    return {field.name: table[:, start] for field, start in zip(fields, starts, strict=False) if field.count == 1}


def _read_binary(fields: list[_Field], points: int, body: bytes) -> dict[str, np.ndarray]:
    row = np.dtype([(f"f{number}", field.dtype, (field.count,)) for number, field in enumerate(fields)])
    if points * row.itemsize > len(body):
        raise _truncated(points, row.itemsize, len(body))
    table = np.frombuffer(body, row, points)
    return {field.name: table[f"f{number}"][:, 0] for number, field in enumerate(fields) if field.count == 1}


def _read_compressed(fields: list[_Field], points: int, body: bytes) -> dict[str, np.ndarray]:
    """The fields follow one another, each with its numbers of all points."""
    size = sum(field.size for field in fields)
    if len(body) < 8:
        raise _truncated(points, size, len(body))
    packed, unpacked = (int(number) for number in np.frombuffer(body, "<u4", 2))
    if packed > len(body) - 8:
        raise MeshError("truncated", f"it announces {packed} compressed bytes; {len(body) - 8} follow")
    if unpacked != points * size:
        raise MeshError("corrupt", f"its {points} points of {size} bytes are announced as {unpacked} bytes")
    content = decompress(np.frombuffer(body, np.uint8, packed, 8), unpacked)
    columns, position = {}, 0
    for field in fields:
        if field.count == 1:
            columns[field.name] = content[position : position + points * field.size].view(field.dtype)
        position += points * field.size
    return columns


def _unpack(packed: np.ndarray, *, from_text: bool) -> list[np.ndarray] | None:
    """Red, green and blue (N,) uint8 of numbers 0xAARRGGBB, or of the floats that have these bits."""
    if packed.dtype.kind == "f" and from_text:
        if not np.isfinite(packed).all():
            return None
        # some programs write the number, as PCL does, others the float of these bits, which is below 1e-37 or negative
        if (packed == np.round(packed)).all() and packed.min() >= -(2**31) and packed.max() < 2**32:
            packed = packed.astype(np.int64)  # signed ones have the alpha in their sign
    if packed.dtype.kind == "f":
        packed = packed.astype(np.float32, copy=False).view(np.uint32)
    bits = packed.astype(np.int64)
    return [(bits >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)]


def _truncated(points: int, size: int, found: int) -> MeshError:
    return MeshError("truncated", f"its header declares {points} points of {size} bytes; {found} bytes follow")
