"""Pickles from the internet, read without running anything that they ask for.

ModelNet40's `.dat` files and Objaverse-LVIS's `.npy` dictionaries are pickles, and a pickle is a program that may call
any function. Here it may name NumPy's constructors only, and even those are not called: stand-ins write down what the
file says about an array, and the array is made from its bytes once the numbers have proved consistent.
"""

from __future__ import annotations

import os
import pickle
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from .errors import MeshError

# ModelNet40's 9,843 training clouds of 8,192 points with normals are 1.9 GB.
MAX_PICKLE_BYTES = 4 * 2**30
MAX_DEPTH = 32
# Kinds of array elements: booleans, integers, floats, text of fixed size, and whatever a pickle itself may hold.
_KINDS = "biufSUO"


def read_pickle(path: str | Path, *, max_bytes: int = MAX_PICKLE_BYTES) -> Any:
    """The content of a pickle file: containers, text, numbers and NumPy arrays of them. Nothing in it is executed.

    Args:
        path: the file.
        max_bytes: its largest size; what it holds takes about as much memory as the file. Arrays are read-only.

    Raises:
        MeshError: with `.reason` "missing", "too_large", "truncated", "corrupt", or "unsupported" for a pickle that
            asks for anything else, harmless or not.
    """
    path = Path(path)
    try:
        with open_file(path, max_bytes) as file:
            return load_pickle(file)
    except MeshError as error:
        if error.path is None:
            error.path = path
        raise


def open_file(path: Path, max_bytes: int) -> IO[bytes]:
    """`path` opened for reading, a file of at most `max_bytes`."""
    if not path.is_file():
        raise MeshError("missing", "there is no such file")
    if path.stat().st_size > max_bytes:
        raise MeshError("too_large", f"it has {path.stat().st_size} bytes; at most {max_bytes}")
    try:
        return path.open("rb")
    except OSError as error:
        raise MeshError("missing", f"it cannot be opened ({error.strerror or error})") from None


def load_pickle(stream: IO[bytes]) -> Any:
    """As `read_pickle`, from the position of a seekable stream to the end of the pickle."""
    start = stream.tell()
    _scan(stream)
    stream.seek(start)
    try:
        return _Resolver().plain(_Unpickler(stream, encoding="latin1").load(), 0)
    except MeshError:
        raise
    except Exception as error:  # a pickle that contradicts itself fails in many ways
        raise MeshError("corrupt", f"it is no sound pickle ({type(error).__name__}: {str(error)[:80]})") from None


class _Unread:
    """A stream whose reads never ask for more than is left, however much a file announces."""

    def __init__(self, stream: IO[bytes]) -> None:
        start = stream.tell()
        self._stream, self._end = stream, stream.seek(0, os.SEEK_END)
        stream.seek(start)
        self.tell, self.readline = stream.tell, stream.readline

    @property
    def left(self) -> int:
        return self._end - self._stream.tell()

    def read(self, size: int) -> bytes:
        return self._stream.read(min(size, self.left))


def _scan(stream: IO[bytes]) -> None:
    """Walks through the opcodes without obeying them: afterwards no length in the file exceeds what the file holds."""
    unread = _Unread(stream)
    count = 0
    try:
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], unread)):
            count += 1
            number = argument if isinstance(argument, int) else 0
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and number > count:
                # the unpickler's memo is an array as long as the largest index
                raise MeshError("corrupt", f"its opcode {count} fills the place {number} of the memo")
            if opcode.name == "FRAME" and number > unread.left:
                raise MeshError("truncated", f"it announces {number} bytes and holds {unread.left} more")
            if opcode.name in ("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"):
                raise MeshError("unsupported", f"it refers to something outside the file ({opcode.name})")
    except MeshError:
        raise
    except Exception as error:  # the message alone says whether bytes are missing
        truncated = any(words in str(error) for words in ("expected", "exhausted", "not enough", "no newline"))
        raise MeshError(
            "truncated" if truncated else "corrupt", f"it is no whole pickle ({str(error)[:120]})"
        ) from None


class _Standin:
    """What a pickle gets instead of a function or class of NumPy: calls `build`, and has no state to change."""

    __slots__ = ("build",)

    def __init__(self, build: Callable[..., Any]) -> None:
        self.build = build

    def __call__(self, *arguments: Any) -> Any:
        return self.build(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise MeshError("unsupported", "it changes a function instead of calling it")


@dataclass(eq=False)
class _Dtype:
    """What the file says of a `numpy.dtype`: its code, such as "f4", and the byte order that its state adds."""

    code: str
    order: str = ""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if len(state) < 5 or any(value is not None for value in state[2:5]):
            raise MeshError("unsupported", "it holds an array of records, not of plain numbers")
        self.order = str(state[1])

    def resolve(self) -> np.dtype:
        kind, size = self.code[:1], self.code[1:]
        if kind not in _KINDS or not size.isdigit() or len(size) > 6 or self.order not in ("", "<", ">", "|", "="):
            raise MeshError("unsupported", f"it holds an array of {self.code[:20]!r}, not of numbers or text")
        try:
            return np.dtype(("" if self.order == "|" else self.order) + ("O" if kind == "O" else self.code))
        except TypeError:
            raise MeshError("corrupt", f"it holds an array of {self.code[:20]!r}, which NumPy does not know") from None


@dataclass(eq=False)
class _Array:
    """What the file says of an `ndarray`, or with no dimension of a NumPy scalar."""

    shape: Any = ()
    dtype: Any = None
    fortran: Any = False
    data: Any = b""
    scalar: bool = False

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.scalar:
            raise MeshError("corrupt", "it changes a number")
        _, self.shape, self.dtype, self.fortran, self.data = state


class _Resolver:
    """Puts arrays in the place of their stand-ins; what occurs several times is made once."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def plain(self, value: Any, depth: int) -> Any:
        if value is None or type(value) in (bool, int, float, str, bytes, bytearray):
            return value
        if depth > MAX_DEPTH:
            raise MeshError("unsupported", f"its containers are nested more than {MAX_DEPTH} deep")
        if id(value) not in self._made:  # an id stays taken, for the whole content is alive
            self._made[id(value)] = self._make(value, depth)
        return self._made[id(value)]

    def _make(self, value: Any, depth: int) -> Any:
        if type(value) in (list, tuple):
            return type(value)(self.plain(item, depth + 1) for item in value)
        if type(value) is dict:
            if not all(type(key) in (bool, int, float, str, bytes) for key in value):
                raise MeshError("unsupported", "it holds a dictionary whose keys are neither text nor numbers")
            return {key: self.plain(item, depth + 1) for key, item in value.items()}
        if type(value) is _Array:
            array = self._array(value, depth)
            return array[()] if value.scalar else array
        raise MeshError("unsupported", f"it holds a {type(value).__name__.lstrip('_').lower()}")

    def _array(self, said: _Array, depth: int) -> np.ndarray:
        shape = said.shape
        if type(said.dtype) is not _Dtype or type(shape) is not tuple or len(shape) > MAX_DEPTH:
            raise MeshError("corrupt", "it holds an array without type or shape")
        if not all(type(length) is int and length >= 0 for length in shape):
            raise MeshError("corrupt", f"it holds an array of the shape {shape}")
        dtype, count = said.dtype.resolve(), 1
        for length in shape:
            count *= length
        if dtype.hasobject:
            if type(said.data) is not list or len(said.data) != count:
                raise MeshError("truncated", f"it holds an array of {count} objects without that many")
            values = np.empty(count, dtype=object)
            for index, item in enumerate(said.data):
                values[index] = self.plain(item, depth + 1)
        else:
            # before Python 3 bytes were text
            data = said.data.encode("latin1") if type(said.data) is str else said.data
            if type(data) not in (bytes, bytearray) or len(data) != count * dtype.itemsize:
                raise MeshError("truncated", f"it holds an array of {count} numbers of {dtype} without their bytes")
            values = np.frombuffer(data, dtype=dtype) if count else np.empty(0, dtype)  # without a copy
            values.flags.writeable = False
        return values.reshape(shape, order="F" if said.fortran else "C")


def _dtype(code: Any, align: Any = False, copy: Any = False) -> _Dtype:
    if type(code) is not str:
        raise MeshError("unsupported", "it holds an array of records, not of plain numbers")
    return _Dtype(code)


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise MeshError("unsupported", "it encodes something else than bytes")
    return text.encode("latin1")


def _empty_bytes(*content: Any) -> bytes:
    """How protocol 2 writes no bytes at all."""
    if content:
        raise MeshError("unsupported", "it calls bytes() with arguments")
    return b""


def _never(*arguments: Any) -> Any:
    raise MeshError("unsupported", "it calls numpy.ndarray itself")


_STANDINS: dict[str, _Standin] = {
    "numpy.ndarray": _Standin(_never),  # only ever named, as the first argument of _reconstruct
    "numpy.dtype": _Standin(_dtype),
    "_codecs.encode": _Standin(_encode),
    "__builtin__.bytes": _Standin(_empty_bytes),
    "builtins.bytes": _Standin(_empty_bytes),
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 2 renamed it
    _STANDINS |= {
        f"{_core}.multiarray._reconstruct": _Standin(lambda subtype, shape, code: _Array()),
        f"{_core}.multiarray.scalar": _Standin(lambda dtype, data: _Array((), dtype, False, data, scalar=True)),
        f"{_core}.numeric._frombuffer": _Standin(
            lambda data, dtype, shape, order="C": _Array(shape, dtype, order == "F", data)
        ),
    }


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked not in _STANDINS:
            raise MeshError(
                "unsupported",
                f"it asks for {asked[:80]}, which was not run: only arrays, containers, numbers and text are read",
            )
        return _STANDINS[asked]
