"""PCD files of all three kinds, and what contradicts their header."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError
from modeling_ulip2.geometry.lzf import _expand, decompress
from modeling_ulip2.geometry.points import read_cloud

RNG = np.random.default_rng(0)
XYZ = RNG.normal(size=(60, 3)).astype(np.float32)
RGB = RNG.integers(0, 256, size=(60, 3)).astype(np.uint8)
BITS = (RGB.astype(np.uint32) << [16, 8, 0]).sum(axis=1).astype(np.uint32)
KINDS = ("ascii", "binary", "binary_compressed")


def compress(data: bytes) -> bytes:
    """A plain LZF encoder: the last place of three equal bytes is repeated, everything else stands as it is."""
    out, literal, seen, i = bytearray(), bytearray(), {}, 0

    def flush() -> None:
        for start in range(0, len(literal), 32):
            part = literal[start : start + 32]
            out.extend([len(part) - 1, *part])
        literal.clear()

    while i < len(data):
        at = seen.get(data[i : i + 3], -1)
        seen[data[i : i + 3]] = i
        length = 0
        while 0 <= at and i - at <= 8192 and i + length < len(data) and data[at + length] == data[i + length]:
            length += 1
            if length == 264:
                break
        if length < 3:
            literal.append(data[i])
            i += 1
            continue
        flush()
        offset = i - at - 1
        if length - 2 < 7:
            out.extend([(length - 2) << 5 | offset >> 8, offset & 255])
        else:
            out.extend([7 << 5 | offset >> 8, length - 9, offset & 255])
        i += length
    flush()
    return bytes(out)


def pcd(fields: dict[str, np.ndarray], kind: str, width: int | None = None, points: int | None = None) -> bytes:
    """A PCD file of columns (N,) or (N, k)."""
    count = len(next(iter(fields.values())))
    types = {"f": "F", "u": "U", "i": "I"}
    header = "# .PCD v0.7 - Point Cloud Data file format\nVERSION 0.7\n"
    header += f"FIELDS {' '.join(fields)}\nSIZE {' '.join(str(c.dtype.itemsize) for c in fields.values())}\n"
    header += f"TYPE {' '.join(types[c.dtype.kind] for c in fields.values())}\n"
    header += f"COUNT {' '.join(str(c[0].size) for c in fields.values())}\n"
    header += f"WIDTH {width or count}\nHEIGHT {count // (width or count)}\nVIEWPOINT 0 0 0 1 0 0 0\n"
    header += f"POINTS {count if points is None else points}\nDATA {kind}\n"
    if kind == "ascii":
        rows = ("\n".join(" ".join(repr(n.item()) for c in fields.values() for n in np.atleast_1d(c[i]))
                          for i in range(count)))  # fmt: skip
        return (header + rows + "\n").encode()
    if kind == "binary":
        return header.encode() + b"".join(c[i].tobytes() for i in range(count) for c in fields.values())
    content = b"".join(c.tobytes() for c in fields.values())
    packed = compress(content)
    return header.encode() + struct.pack("<II", len(packed), len(content)) + packed


def columns(**more: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": XYZ[:, 0], "y": XYZ[:, 1], "z": XYZ[:, 2], **more}


def read(folder: Path, data: bytes, **options):
    (folder / "a.pcd").write_bytes(data)
    return read_cloud(folder / "a.pcd", **options)


def reason(folder: Path, data: bytes, **options) -> str:
    with pytest.raises(MeshError) as caught:
        read(folder, data, **options)
    return caught.value.reason


@pytest.mark.parametrize("kind", KINDS)
def test_fields(tmp_path, kind):
    alpha = BITS | np.uint32(0xFF000000)
    normals = XYZ / np.linalg.norm(XYZ, axis=1, keepdims=True)
    for color in (
        {"rgb": BITS}, {"rgb": BITS.view(np.float32)}, {"rgba": alpha}, {"rgb": BITS.astype(np.int32)},
        {"r": RGB[:, 0], "g": RGB[:, 1], "b": RGB[:, 2]},
        {"normal_x": normals[:, 0], "normal_y": normals[:, 1], "normal_z": normals[:, 2], "rgb": BITS},
        {"fpfh": RNG.random((60, 33)).astype(np.float32), "_": np.zeros((60, 4), np.uint8), "rgb": BITS},
    ):  # fmt: skip
        cloud = read(tmp_path, pcd(columns(**color), kind))
        np.testing.assert_array_equal(cloud.xyz, XYZ)
        np.testing.assert_array_equal(cloud.rgb, RGB), color.keys()
        assert cloud.warnings == []
    plain = read(tmp_path, pcd(columns(intensity=XYZ[:, 0], normal_x=XYZ[:, 0]), kind))
    assert plain.rgb is None and plain.warnings == []
    far = {axis: XYZ[:, i].astype(np.float64) + 5e6 for i, axis in enumerate("xyz")}
    assert np.array_equal(read(tmp_path, pcd(far, kind)).xyz, XYZ.astype(np.float64) + 5e6)


@pytest.mark.parametrize("kind", ("binary", "binary_compressed"))
def test_floats_whose_bits_are_an_opaque_color(tmp_path, kind):
    bits = (BITS | np.uint32(0xFF000000)).view(np.float32)  # most of them NaN
    np.testing.assert_array_equal(read(tmp_path, pcd(columns(rgb=bits), kind)).rgb, RGB)


def test_colors_that_text_has_lost(tmp_path):
    bits = (BITS | np.uint32(0xFF000000)).view(np.float32)
    cloud = read(tmp_path, pcd(columns(rgb=bits), "ascii"))
    assert cloud.rgb is None and "NaN" in cloud.warnings[0]
    numbers = read(
        tmp_path, pcd(columns(rgb=BITS.astype(np.float64)), "ascii").replace(b"SIZE 4 4 4 8", b"SIZE 4 4 4 4")
    )
    np.testing.assert_array_equal(numbers.rgb, RGB)  # the number itself under the type F


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_points_of_an_image_are_left_out(tmp_path, kind):
    xyz = XYZ.copy()
    xyz[[3, 7, 59]] = np.nan
    fields = {"x": xyz[:, 0], "y": xyz[:, 1], "z": xyz[:, 2], "rgb": BITS}
    cloud = read(tmp_path, pcd(fields, kind, width=10))
    keep = np.isfinite(xyz[:, 0])
    np.testing.assert_array_equal(cloud.xyz, xyz[keep])
    np.testing.assert_array_equal(cloud.rgb, RGB[keep])
    assert cloud.warnings == ["3 of its 60 points are marked as invalid (NaN) and were left out"]
    nothing = {name: np.full(60, np.nan, np.float32) for name in "xyz"}
    assert reason(tmp_path, pcd(nothing, kind)) == "empty"


@pytest.mark.parametrize("kind", KINDS)
def test_contradictions_and_limits(tmp_path, kind):
    whole = pcd(columns(rgb=BITS), kind)
    assert reason(tmp_path, whole, max_points=59) == "too_many_points"
    assert reason(tmp_path, whole[: len(whole) // 2]) in ("truncated", "corrupt")
    for old, new in {
        "POINTS 60": "POINTS 61", "HEIGHT 1": "HEIGHT 2", "SIZE 4": "SIZE 3", "TYPE F": "TYPE Q",
        "COUNT 1": "COUNT -1",
        "POINTS 60\n": "POINTS many\n", "FIELDS x": "FIELD x", "COUNT 1 1": "COUNT 1", "SIZE 4 4": "SIZE 8 4",
        "COUNT 1 1 1 1": "COUNT 1 1 1 2", "WIDTH 60": f"WIDTH {10**30}",
    }.items():  # fmt: skip
        broken = whole.replace(old.encode(), new.encode(), 1)
        if not (kind == "ascii" and old == "SIZE 4 4"):
            assert reason(tmp_path, broken) in ("corrupt", "truncated"), old
    huge = whole.replace(b"WIDTH 60", b"WIDTH 4000000000").replace(b"POINTS 60", b"POINTS 4000000000")
    assert reason(tmp_path, huge) == "too_many_points"
    assert reason(tmp_path, huge, max_points=10**10) in ("corrupt", "truncated")
    assert reason(tmp_path, whole.replace(b"DATA " + kind.encode(), b"DATA zip")) == "unsupported"
    assert reason(tmp_path, whole.replace(b"FIELDS x y z", b"FIELDS u v w")) == "empty"
    none = whole.replace(b"WIDTH 60", b"WIDTH 0").replace(b"POINTS 60", b"POINTS 0")
    assert reason(tmp_path, none) == "empty"
    assert reason(tmp_path, b"solid " * 20_000) == "unsupported"


def test_lines_of_windows_and_no_points_entry(tmp_path):
    data = pcd(columns(rgb=BITS), "ascii")
    data = data.replace(b"POINTS 60\n", b"").replace(b"VERSION 0.7\n", b"").replace(b"COUNT 1 1 1 1\n", b"")
    assert np.array_equal(read(tmp_path, data.replace(b"\n", b"\r\n")).rgb, RGB)


def test_lzf():
    for data in (b"", b"a" * 5000, RNG.integers(0, 256, 3000).astype(np.uint8).tobytes(), b"abcabcabcd" * 300):
        packed = np.frombuffer(compress(data), np.uint8)
        assert decompress(packed, len(data)).tobytes() == data
        plain = np.zeros(len(data), np.uint8)
        assert _expand(packed, plain) == len(data) and plain.tobytes() == data  # without a compiler
    for damaged in ([31, 1], [32, 0], [224], [224, 0], [0, 1, 32, 5], [64, 0, 255]):
        with pytest.raises(MeshError):
            decompress(np.array(damaged, np.uint8), 50)
    with pytest.raises(MeshError, match="cannot hold"):
        decompress(np.zeros(10, np.uint8), 10**12)


def test_damaged_bytes_are_errors_or_points(tmp_path):
    """Whatever is changed in a file, it is read or refused, and never crashes."""
    for kind in KINDS:
        whole = bytearray(pcd(columns(rgb=BITS), kind))
        for seed in range(30):
            rng = np.random.default_rng(seed)
            broken = whole.copy()
            for place in rng.integers(0, len(broken), 3):
                broken[place] = rng.integers(0, 256)
            try:
                assert len(read(tmp_path, bytes(broken)).xyz) <= 60
            except MeshError:
                pass
