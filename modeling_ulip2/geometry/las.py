"""LAS and LAZ, the formats of laser scans, through laspy."""

from __future__ import annotations

import io
import struct

import numpy as np

from modeling_ulip2.utils.packages import install_command

from .cloud import PointCloud, check_count
from .columns import named_cloud
from .errors import MeshError

_CHUNK = 1_000_000
_RECORD = 54  # bytes of a record's own header


def read_las(data: bytes, max_points: int) -> PointCloud:
    """The cloud in a LAS or LAZ file, its scale and offset applied in float64: in meters of a map, z up.

    Colors that are 0 everywhere count as none: scans without color also use formats with colors.

    Raises:
        MeshError: "unsupported" also where laspy is missing; the message says what to install.
    """
    if not data.startswith(b"LASF"):
        raise MeshError("unsupported", "it is no LAS file: it does not begin with LASF")
    _check_records(data)
    try:
        import laspy
    except ImportError:
        raise MeshError("unsupported", f"LAS and LAZ files need laspy; {install_command('las')}") from None
    try:
        with laspy.open(io.BytesIO(data)) as reader:
            count = int(reader.header.point_count)
            check_count(count, max_points)
            row = reader.header.point_format.size
            if reader.header.are_points_compressed:
                _check_chunks(data, int(reader.header.offset_to_point_data), count)
            if not reader.header.are_points_compressed and count * row > len(data):
                raise MeshError("truncated", f"it announces {count} points of {row} bytes and has {len(data)} bytes")
            names = ["X", "Y", "Z"]
            colored = {"red", "green", "blue"} <= set(reader.header.point_format.dimension_names)
            names += ["red", "green", "blue"] if colored else []
            chunks = [[np.array(chunk[name]) for name in names] for chunk in reader.chunk_iterator(_CHUNK)]
            scales, offsets = np.array(reader.header.scales), np.array(reader.header.offsets)
    except MeshError:
        raise
    except MemoryError:
        raise
    except BaseException as error:  # laspy fails in many ways, and lazrs panics outside of Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        if "Laz" in str(error) and "backend" in str(error).lower():
            raise MeshError("unsupported", f"LAZ files need lazrs; {install_command('las')}") from None
        raise MeshError("corrupt", f"it is no sound LAS file ({type(error).__name__}: {str(error)[:120]})") from None
    columns = [np.concatenate(parts) for parts in zip(*chunks, strict=True)]
    if not columns or len(columns[0]) < count:
        found = len(columns[0]) if columns else 0
        raise MeshError("truncated" if count else "empty", f"it announces {count} points and holds {found}")
    warnings: list[str] = []
    table = {axis: columns[i] * scales[i] + offsets[i] for i, axis in enumerate("xyz")}
    if colored and any(column.any() for column in columns[3:]):
        table |= dict(zip(("red", "green", "blue"), columns[3:], strict=True))
    elif colored:
        warnings.append("its colors are 0 everywhere, as in scans without colors, and were left out")
    return named_cloud(table, warnings)


def _check_records(data: bytes) -> None:
    """Refuses more records of variable length than the file can hold: laspy would read each of them."""
    if len(data) < 227:
        raise MeshError("truncated", f"its {len(data)} bytes are less than a LAS header")
    (records,) = struct.unpack_from("<I", data, 100)
    extended = struct.unpack_from("<I", data, 243)[0] if data[25] >= 4 and len(data) >= 375 else 0
    if _RECORD * (records + extended) > len(data):
        raise MeshError("corrupt", f"its header declares {records + extended} records; {len(data)} bytes cannot be")


def _check_chunks(data: bytes, start: int, count: int) -> None:
    """Refuses a table of more chunks of compressed points than there are points: lazrs would take memory for it."""
    if start + 8 > len(data):
        raise MeshError("truncated", f"its points begin at byte {start} of {len(data)}")
    (table,) = struct.unpack_from("<q", data, start)
    if table == -1:  # written behind everything, by programs that could not go back
        (table,) = struct.unpack_from("<q", data, len(data) - 8)
    if not 0 <= table <= len(data) - 8:
        raise MeshError("truncated", f"its table of chunks begins at byte {table} of {len(data)}")
    (chunks,) = struct.unpack_from("<I", data, table + 4)
    if chunks > count + 1:
        raise MeshError("corrupt", f"it declares {chunks} chunks of {count} points")
