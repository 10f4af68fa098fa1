"""Values on their way from a process that nobody trusts: numbers, texts, arrays, and nothing that can be executed.

    ULF1, length of the header (uint32), length of the arrays (uint64), both little-endian
    header: UTF-8 JSON, in which an array is {"array": [dtype, shape]}
    arrays: one behind the other in the order of the header, C order, little-endian

Who reads a frame counts before memory is taken, knows every type that may come, and checks the fields of each.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .errors import REASONS, MeshError

MAGIC = b"ULF1"
_HEAD = struct.Struct("<4sIQ")
MAX_HEADER_BYTES = 4 << 20
MAX_DIMENSIONS = 8
DTYPES = ("|b1", "|u1", "|i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8")
IMAGE_MODES = {"L": (), "RGB": (3,), "RGBA": (4,)}  # of pictures, with what follows (H, W) in their arrays
# Errors that come back as what they were, or as the nearest of these; others as a RuntimeError that names them.
ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    FileNotFoundError,
    IndexError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    PermissionError,
    RuntimeError,
    TypeError,
    ValueError,
)


class FrameError(ValueError):
    """Bytes that are no frame, or hold what must not come; the message says what."""


def pack(value: Any, kinds: Sequence[type] = ()) -> tuple[bytes, list[memoryview]]:
    """Head and header of a frame, and the arrays that follow.

    Args:
        value: None, booleans, numbers, strings, bytes, paths, arrays of numbers, pictures of PIL; lists, tuples and
            dictionaries with strings as keys of them; instances of `kinds`.
        kinds: dataclasses.

    Raises:
        TypeError: something else.
    """
    arrays: list[np.ndarray] = []
    header = json.dumps(_pack(value, tuple(kinds), arrays), separators=(",", ":")).encode()
    head = _HEAD.pack(MAGIC, len(header), sum(array.nbytes for array in arrays))
    return head + header, [array.reshape(-1).view(np.uint8).data for array in arrays if array.size]


def _pack(value: Any, kinds: tuple[type, ...], arrays: list[np.ndarray]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _pack(value.item(), kinds, arrays)
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).reshape(value.shape)
        if array.dtype.str not in DTYPES:
            raise TypeError(f"arrays of {value.dtype} do not travel")
        arrays.append(array)
        return {"array": [array.dtype.str, list(array.shape)]}
    if isinstance(value, list):
        return [_pack(each, kinds, arrays) for each in value]
    if isinstance(value, tuple):
        return {"tuple": [_pack(each, kinds, arrays) for each in value]}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _pack(each, kinds, arrays) for key, each in value.items()}}
    if isinstance(value, bytes):
        return {"bytes": _pack(np.frombuffer(value, np.uint8), kinds, arrays)}
    if isinstance(value, Path):
        return {"path": str(value)}
    if type(value) in kinds:
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"data": [type(value).__name__, {key: _pack(each, kinds, arrays) for key, each in fields.items()}]}
    if type(value).__module__.partition(".")[0] == "PIL" and getattr(value, "mode", None) in IMAGE_MODES:
        return {"image": [value.mode, _pack(np.asarray(value), kinds, arrays)]}
    raise TypeError(f"a {type(value).__name__} does not travel")


def pack_error(error: Exception, kinds: Sequence[type[Exception]] = ()) -> Any:
    """An exception as a value for `pack`, for `unpack_error`."""
    message = str(error.args[0]) if len(error.args) == 1 else str(error)
    if isinstance(error, MeshError):
        return {"error": "MeshError", "message": message, "reason": error.reason, "path": error.path}
    known = (*kinds, *ERRORS)
    name = next((kind.__name__ for kind in type(error).__mro__ if kind in known), None)
    if name is None:
        return {"error": "RuntimeError", "message": f"{type(error).__name__}: {message}"}
    return {"error": name, "message": message}


def unpack_error(value: Any, kinds: Sequence[type[Exception]] = ()) -> Exception:
    """The exception that `value` describes; raises FrameError for one that may not come."""
    if not isinstance(value, dict) or not isinstance(value.get("message"), str):
        raise FrameError("it reports an error without a message")
    name, message = value.get("error"), value["message"]
    if name == "MeshError":
        reason, path = value.get("reason"), value.get("path")
        if reason not in REASONS or not isinstance(path, Path | None):
            raise FrameError("it reports a MeshError of an unknown reason")
        return MeshError(reason, message, path)
    known = {kind.__name__: kind for kind in (*ERRORS, *kinds)}
    if name not in known:
        raise FrameError("it reports an unknown error")
    return known[name](message)


def receive(read: Callable[[int], bytearray], max_bytes: int, kinds: Sequence[type] = ()) -> Any:
    """The value of the next frame.

    Args:
        read: gives so many bytes, or raises.
        max_bytes: that the arrays may have in all.
        kinds: the dataclasses that may come.

    Raises:
        FrameError: the bytes are no frame, too many, or hold something else.
    """
    magic, header_bytes, array_bytes = _HEAD.unpack(read(_HEAD.size))
    if magic != MAGIC:
        raise FrameError("it does not begin as a frame")
    if header_bytes > MAX_HEADER_BYTES or array_bytes > max_bytes:
        raise FrameError(f"it announces {header_bytes} and {array_bytes} bytes, more than it may send")
    try:
        header = json.loads(read(header_bytes).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"its header is no JSON ({type(error).__name__})") from None
    content = _Content(array_bytes, {kind.__name__: kind for kind in kinds})
    try:
        content.count(header)  # before the memory for them is taken
        if content.counted != array_bytes:
            raise FrameError(f"its arrays have {content.counted} bytes, it announces {array_bytes}")
        content.data = read(array_bytes)
        return content.value(header)
    except RecursionError:
        raise FrameError("its header is nested too deeply") from None


class _Content:
    """The values of a header, with the arrays behind it."""

    def __init__(self, size: int, kinds: Mapping[str, type]) -> None:
        self.size, self.kinds = size, kinds
        self.counted = self.place = 0
        self.data = bytearray()

    def count(self, node: Any) -> None:
        """Adds up the sizes of all arrays."""
        if isinstance(node, dict):
            if len(node) == 1 and "array" in node:
                dtype, shape = self._array(node["array"])
                self.counted += _number(shape) * dtype.itemsize
                if self.counted > self.size:
                    raise FrameError("its arrays are larger than it announces")
                return
            for each in node.values():
                self.count(each)
        elif isinstance(node, list):
            for each in node:
                self.count(each)

    def _array(self, node: Any) -> tuple[np.dtype, tuple[int, ...]]:
        if not isinstance(node, list) or len(node) != 2 or node[0] not in DTYPES or not isinstance(node[1], list):
            raise FrameError("it holds an array of another kind")
        if len(node[1]) > MAX_DIMENSIONS or not all(type(n) is int and 0 <= n < 2**62 for n in node[1]):
            raise FrameError("it holds an array of another shape")
        return np.dtype(node[0]), tuple(node[1])

    def value(self, node: Any) -> Any:
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, list):
            return [self.value(each) for each in node]
        if not isinstance(node, dict) or len(node) != 1:
            raise FrameError("its header is of another form")
        ((kind, content),) = node.items()
        read = getattr(self, f"_read_{kind}", None) if kind in _KINDS else None
        if read is None:
            raise FrameError("it holds a value of an unknown kind")
        return read(content)

    def _read_array(self, content: Any) -> np.ndarray:
        dtype, shape = self._array(content)
        count = _number(shape)
        array = np.frombuffer(self.data, dtype, count, self.place).reshape(shape) if count else np.empty(shape, dtype)
        self.place += count * dtype.itemsize
        return array

    def _read_tuple(self, content: Any) -> tuple[Any, ...]:
        return tuple(self._sequence(content))

    def _sequence(self, content: Any) -> list[Any]:
        if not isinstance(content, list):
            raise FrameError("its header is of another form")
        return [self.value(each) for each in content]

    def _read_dict(self, content: Any) -> dict[str, Any]:
        if not isinstance(content, dict):
            raise FrameError("its header is of another form")
        return {key: self.value(each) for key, each in content.items()}

    def _read_bytes(self, content: Any) -> bytes:
        array = self.value(content)
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
            raise FrameError("its bytes are none")
        return array.tobytes()

    def _read_path(self, content: Any) -> Path:
        if not isinstance(content, str) or "\0" in content:
            raise FrameError("its path is none")
        return Path(content)

    def _read_image(self, content: Any) -> Any:
        from PIL import Image

        if not isinstance(content, list) or len(content) != 2 or content[0] not in IMAGE_MODES:
            raise FrameError("its picture is of another kind")
        mode, pixels = content[0], self.value(content[1])
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.size == 0:
            raise FrameError("its picture has no pixels")
        if pixels.ndim < 2 or pixels.shape[2:] != IMAGE_MODES[mode]:
            raise FrameError("its picture has another shape")
        return Image.fromarray(pixels)

    def _read_data(self, content: Any) -> Any:
        if not isinstance(content, list) or len(content) != 2 or not isinstance(content[0], str):
            raise FrameError("its header is of another form")
        kind, fields = self.kinds.get(content[0]), self._read_dict(content[1])
        if kind is None:
            raise FrameError("it holds a value of an unknown kind")
        hints = _hints(kind)
        if set(fields) != set(hints):
            raise FrameError(f"its {kind.__name__} has other fields")
        for name, value in fields.items():
            if not _fits(value, hints[name]):
                raise FrameError(f"{name} of its {kind.__name__} is a {type(value).__name__}")
        try:
            return kind(**fields)
        except MeshError:
            raise
        except Exception as error:  # what a value says about itself, such as arrays of other shapes
            raise FrameError(f"its {kind.__name__} cannot be: {type(error).__name__}") from None


_KINDS = ("array", "tuple", "dict", "bytes", "path", "image", "data")


def _number(shape: Sequence[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is what a field of a dataclass says: a class, a union, a literal, a list, a tuple or a dict."""
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, each) for each in inside)
    if origin is typing.Literal:
        return any(type(value) is type(each) and value == each for each in inside)
    if origin is np.ndarray:
        return isinstance(value, np.ndarray)
    if origin is list:
        return isinstance(value, list) and all(_fits(each, inside[0]) for each in value)
    if origin is tuple:
        if len(inside) == 2 and inside[1] is Ellipsis:
            return isinstance(value, tuple) and all(_fits(each, inside[0]) for each in value)
        pairs = zip(value, inside, strict=False) if isinstance(value, tuple) else ()
        return isinstance(value, tuple) and len(value) == len(inside) and all(_fits(each, own) for each, own in pairs)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(key, inside[0]) and _fits(v, inside[1]) for key, v in value.items()
        )
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(hint, type) and isinstance(value, hint)
