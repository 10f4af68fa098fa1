"""Pickles and `.npy` files of objects: what they hold is read, what they ask for is never run, lies are errors."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError, read_npy, read_pickle

CONTENT: dict[str, Any] = {
    "clouds": [np.arange(12, dtype=np.float32).reshape(4, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))],
    "labels": [np.array([3], dtype=np.int32), np.int64(4), np.float16(0.5)],
    "names": np.array(["airplane", "sofa"]),
    "big endian": np.arange(3, dtype=">i2"),
    "flags": np.array([True, False]),
    "none": np.zeros((0, 3)),
    "objects": np.array([{"xyz": np.ones(2)}, "text", None], dtype=object),
    "plain": (1, 2.5, "é", b"\x00\xff", b"", True, None, {"a": [10**12]}),
}


def equal(read: Any, written: Any) -> None:
    assert type(read) is type(written)
    if isinstance(written, np.ndarray):
        assert read.dtype == written.dtype and read.shape == written.shape
        if written.dtype == object:
            for mine, other in zip(read, written, strict=True):
                equal(mine, other)
        else:
            np.testing.assert_array_equal(read, written)
    elif isinstance(written, dict):
        assert read.keys() == written.keys()
        for key in written:
            equal(read[key], written[key])
    elif isinstance(written, (list, tuple)):
        assert len(read) == len(written)
        for mine, other in zip(read, written, strict=True):
            equal(mine, other)
    else:
        assert read == written


def error_of(path: Path, read=read_pickle, **kwargs: Any) -> MeshError:
    with pytest.raises(MeshError) as error:
        read(path, **kwargs)
    assert error.value.path == path
    return error.value


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(tmp_path: Path, protocol: int):
    path = tmp_path / "a.dat"
    path.write_bytes(pickle.dumps(CONTENT, protocol=protocol))
    equal(read_pickle(path), CONTENT)


def test_numpy_1_and_python_2(tmp_path: Path):
    path = tmp_path / "a.dat"
    data = pickle.dumps([np.arange(4, dtype=np.float32), np.float32(2)], protocol=2)
    path.write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    equal(read_pickle(path), [np.arange(4, dtype=np.float32), np.float32(2)])
    # Python 2 wrote the bytes of an array as a string
    values = np.array([1.5, -2.0, 3e-7])
    text = b"U" + bytes([values.nbytes]) + values.tobytes()
    path.write_bytes(
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89" + text + b"tb."
    )
    equal(read_pickle(path), values)


class Attack:
    """Pickles itself as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: [np.ones(3), {"xyz": it}]], ids=["alone", "inside"])
def test_nothing_is_executed(tmp_path: Path, protocol: int, wrap):
    sign = tmp_path / "executed"
    for function, arguments in [
        (os.mkdir, (str(sign),)),
        (eval, (f"__import__('os').mkdir({str(sign)!r})",)),
        (np.load, (str(sign),)),
        (getattr, ("text", "__class__")),
    ]:
        path = tmp_path / "a.dat"
        path.write_bytes(pickle.dumps(wrap(Attack(function, *arguments)), protocol=protocol))
        error = error_of(path)
        assert error.reason == "unsupported" and "was not run" in str(error)
        np.save(tmp_path / "a.npy", np.array(wrap(Attack(function, *arguments)), dtype=object), allow_pickle=True)
        assert error_of(tmp_path / "a.npy", read_npy).reason == "unsupported"
    assert not sign.exists()


@pytest.mark.parametrize(
    "program",
    [
        pickle.dumps(Attack(bytes, 2**40), protocol=4),
        b"\x80\x02c_codecs\nencode\n}S'__name__'\nS'x'\nsb.",  # gives a function an attribute
        b"\x80\x02c_codecs\nencode\nN}S'__defaults__'\n(S'x'\ntsb\x86.",
        b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00rot1tR.",  # another codec
        b"\x80\x02cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",  # numpy.ndarray(2147483647)
        b"\x80\x02cnumpy\ndtype\n(]tR.",  # a dtype of fields
        b"\x80\x02cnumpy\nndarray\n.",
        b"\x80\x02cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00M8tRU\x08abcdefghtR.",
        b"\x80\x02Punknown\n.",  # a persistent id
        b"\x80\x02\x82\x01.",  # an extension
        b"\x80\x04\x8f.",  # a set
    ],
)
def test_odd_programs_are_refused(tmp_path: Path, program: bytes):
    path = tmp_path / "a.dat"
    path.write_bytes(program)
    assert error_of(path).reason in ("unsupported", "corrupt")


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # the memo at place 2147483647
        b"\x80\x04\x95\x00\x00\x00\x00\x10\x00\x00\x00N.",  # a frame of 64 GB
        b"\x80\x04\x8e\x00\x00\x00\x00\x10\x00\x00\x00abc.",  # 64 GB of bytes
        b"\x80\x05\x96\x00\x00\x00\x00\x10\x00\x00\x00abc.",  # and of bytearray
        b"\x80\x02X\xff\xff\xff\xffabc.",
    ],
)
def test_announced_sizes_take_no_memory(tmp_path: Path, program: bytes):
    path = tmp_path / "a.dat"
    path.write_bytes(program)
    assert error_of(path).reason in ("truncated", "corrupt")


def test_arrays_must_hold_what_they_declare(tmp_path: Path):
    path = tmp_path / "a.dat"
    data = pickle.dumps(np.zeros((5, 3), dtype=np.float32), protocol=2)
    assert data.count(b"K\x05K\x03") == 1
    path.write_bytes(data.replace(b"K\x05K\x03", b"K\x05K\x04"))
    assert error_of(path).reason == "truncated"
    path.write_bytes(data.replace(b"K\x05K\x03", b"M\xff\xffJ\xff\xff\xff\x7f"))
    assert error_of(path).reason == "truncated"
    path.write_bytes(data.replace(b"K\x05K\x03", b"J\xff\xff\xff\xffK\x03"))
    assert error_of(path).reason == "corrupt"


def test_nesting(tmp_path: Path):
    path = tmp_path / "a.dat"
    path.write_bytes(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    assert error_of(path).reason == "unsupported"
    path.write_bytes(b"\x80\x02]q\x01h\x01a.")  # a list that holds itself
    assert error_of(path).reason == "unsupported"
    content: list = []
    for _ in range(30):
        content = [content, content]  # 2^30 paths to one list
    path.write_bytes(pickle.dumps(content))
    assert len(read_pickle(path)) == 2


def test_every_truncation_is_an_error(tmp_path: Path):
    path = tmp_path / "a.dat"
    for protocol in (2, 4):
        data = pickle.dumps([np.arange(6, dtype=np.float32), "text", {"a": 1}], protocol=protocol)
        for length in range(len(data)):
            path.write_bytes(data[:length])
            assert error_of(path).reason in ("truncated", "corrupt")


def test_noise_is_an_error_or_content_and_never_a_crash(tmp_path: Path):
    rng = np.random.default_rng(0)
    data = np.frombuffer(pickle.dumps([np.arange(6, dtype=np.float32), {"a": "b"}], protocol=4), np.uint8)
    path = tmp_path / "a.dat"
    for _ in range(400):
        noisy = data.copy()
        noisy[rng.integers(len(data), size=2)] = rng.integers(256, size=2)
        path.write_bytes(noisy.tobytes())
        try:
            read_pickle(path)
        except MeshError as error:
            assert error.path == path


def test_npy_of_objects(tmp_path: Path):
    path = tmp_path / "a.npy"
    np.save(path, np.array(CONTENT, dtype=object), allow_pickle=True)
    equal(read_npy(path), CONTENT)
    clouds = [{"xyz": np.ones((2, 3)), "rgb": np.full((2, 3), 100)}, {"xyz": np.zeros((2, 3)), "rgb": np.ones((2, 3))}]
    np.save(path, np.array(clouds, dtype=object), allow_pickle=True)
    equal(read_npy(path), clouds)
    np.save(path, np.arange(6, dtype=np.float16).reshape(2, 3))
    equal(read_npy(path), np.arange(6, dtype=np.float16).reshape(2, 3))


def test_npy_that_lies(tmp_path: Path):
    path = tmp_path / "a.npy"
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": (3,)})
    path.write_bytes(file.getvalue() + pickle.dumps({"xyz": 1}))
    assert error_of(path, read_npy).reason == "corrupt"
    path.write_bytes(file.getvalue())
    assert error_of(path, read_npy).reason == "truncated"
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    path.write_bytes(file.getvalue() + struct.pack("<f", 1.0))
    assert error_of(path, read_npy).reason == "truncated"
    path.write_bytes(b"not numpy")
    assert error_of(path, read_npy).reason == "corrupt"
    assert error_of(tmp_path / "none.npy", read_npy).reason == "missing"
    assert error_of(path, read_npy, max_bytes=3).reason == "too_large"
