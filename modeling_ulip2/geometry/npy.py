"""NumPy's `.npy` files: numbers, and the pickled dictionaries in which point clouds circulate."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import MeshError
from .pickles import MAX_PICKLE_BYTES, load_pickle, open_file


def read_npy(path: str | Path, *, max_bytes: int = MAX_PICKLE_BYTES) -> Any:
    """The content of a `.npy` file. Pickled objects are read as by `read_pickle`: nothing in them is executed.

    Returns:
        An array of numbers; of an array of objects its only object where it has no dimension (Objaverse-LVIS keeps a
        dict so: `xyz`, `rgb`, …), else the list of its objects (ModelNet40 keeps a dict for each cloud).

    Raises:
        MeshError: as `read_pickle`.
    """
    path = Path(path)
    try:
        with open_file(path, max_bytes) as file:
            return load_npy_content(file, path.stat().st_size)
    except MeshError as error:
        if error.path is None:
            error.path = path
        raise


def load_npy_content(stream: IO[bytes], size: int, **options: Any) -> Any:
    """As `read_npy`, from a seekable stream over `size` bytes; `options` are those of `load_npy`."""
    shape, _, dtype = read_npy_header(stream, "it")
    if not dtype.hasobject:
        return load_npy(stream, size, "it", **options)
    if dtype != np.dtype(object):
        raise MeshError("unsupported", f"it holds records ({dtype}), not an array of objects")
    objects = load_pickle(stream)
    if not isinstance(objects, np.ndarray) or objects.shape != shape:
        raise MeshError("corrupt", f"it announces an array of the shape {shape} and holds something else")
    return objects.item() if shape == () else list(objects)


def load_npy(
    stream: IO[bytes], size: int, what: str, *, max_rows: int | None = None, records: bool = False
) -> np.ndarray:
    """An array of numbers from a stream at its start or behind its header.

    The header is checked before memory is taken, and pickles are never opened.

    Args:
        stream: a seekable stream over `size` bytes.
        what: the subject of an error message, "it" or the name of an archive's member.
        max_rows: largest length of the array.
        records: whether its elements may be records of numbers.
    """
    stream.seek(0)
    shape, _, dtype = read_npy_header(stream, what)
    fields = [dtype[name] for name in dtype.names] if records and dtype.names else [dtype]
    if any(field.kind not in "fiu" for field in fields):
        raise MeshError("unsupported", f"{what} holds {dtype}, not numbers; pickled objects are never opened")
    if max_rows is not None and shape and shape[0] > max_rows:
        raise MeshError("too_many_points", f"{what} holds {shape[0]} points; at most {max_rows}")
    count = 1
    for length in shape:
        count *= int(length)
    if count * dtype.itemsize > size - stream.tell():
        raise MeshError("truncated", f"{what} declares {count} numbers of {dtype}, more than the file holds")
    stream.seek(0)
    return np.load(stream, allow_pickle=False)


def read_npy_header(stream: IO[bytes], what: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether its first index runs fastest (Fortran's order), and type of the array that follows."""
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
    except Exception as error:  # NumPy evaluates the header as Python, which fails in many ways
        raise MeshError("corrupt", f"{what} has no readable npy header ({error})") from None
    return shape, fortran, dtype
