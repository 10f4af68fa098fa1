"""Point clouds as text, as people and programs write it."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError
from modeling_ulip2.geometry.cloud import PointCloud
from modeling_ulip2.geometry.isolation import Isolation
from modeling_ulip2.geometry.points import read_cloud

XYZ = np.round(np.random.default_rng(0).normal(size=(6, 3)), 3)
RGB = np.random.default_rng(1).integers(0, 256, size=(6, 3))
PLAIN = "\n".join(" ".join(map(str, row)) for row in XYZ.tolist()) + "\n"
COLORED = "\n".join(" ".join(map(str, [*p, *c])) for p, c in zip(XYZ.tolist(), RGB.tolist(), strict=True)) + "\n"


def read(folder: Path, text: str | bytes, name: str = "a.xyz", **options):
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_cloud(path, **options)


def error(folder: Path, text: str | bytes, name: str = "a.xyz", **options) -> MeshError:
    with pytest.raises(MeshError) as caught:
        read(folder, text, name, **options)
    return caught.value


@pytest.mark.parametrize(
    "data",
    [codecs.BOM_UTF8 + COLORED.encode(), COLORED.encode("utf-16"), COLORED.encode("utf-16-le"),
     COLORED.replace("\n", "\r").encode(), COLORED.replace("\n", "\r\n").encode(), COLORED.encode() + b"\0\0",
     COLORED.encode() + b"\x1a", "# Stuhl, grün\n".encode("latin-1") + COLORED.encode(), COLORED.strip().encode(),
     COLORED.replace("\n", "  \n\n \t\n").encode(), COLORED.replace("\n", " # a comment\n").encode(),
     ("% matlab\n// c\n# shell\n" + COLORED).encode(), COLORED.replace(" ", ", ").encode(),
     COLORED.replace(" ", ",").replace("\n", ",\n").encode(), COLORED.replace(" ", ";").encode(),
     COLORED.replace(" ", "\t").encode(), COLORED.replace(" ", " , ").encode(), COLORED.replace(" ", "   ").encode(),
     ("x,y,z,r,g,b\n" + COLORED.replace(" ", ",")).encode(),
     b'"X" "Y" "Z" "R" "G" "B"\n' + "".join(
         f'"{i}" {row}\n' for i, row in enumerate(COLORED.splitlines(), 1)).encode(),
     ("//X Y Z R G B\n6\n" + COLORED).encode(), ("6\n" + COLORED).encode()],
)  # fmt: skip
def test_one_cloud_in_many_hands(tmp_path, data):
    for suffix in (".xyz", ".txt", ".csv"):
        cloud = read(tmp_path, data, f"a{suffix}")
        assert np.array_equal(cloud.xyz, XYZ) and np.array_equal(cloud.rgb, RGB), suffix


def rows(*columns) -> str:
    return "\n".join(",".join(map(str, row)) for row in zip(*(np.asarray(c).tolist() for c in columns), strict=True))


def test_names_decide_on_the_order(tmp_path):
    x, y, z, r, g, b = *XYZ.T, *RGB.T
    for header, columns in {
        "red,green,blue,x,y,z": (r, g, b, x, y, z),
        "Z,Y,X,B,G,R": (z, y, x, b, g, r),
        "# intensity, x, y, z, blue, green, red": (r, x, y, z, b, g, r),
        ",x,y,z,r,g,b": (range(6), x, y, z, r, g, b),  # pandas' index
        "x,y,z,scan name,r,g,b": (x, y, z, [np.nan] * 6, r, g, b),
        "label,x,y,z,red,green,blue": (["office chair"] * 6, x, y, z, r, g, b),
        "x,y,z,red,green,blue,hex": (x, y, z, r, g, b, ["#ff0000"] * 6),
        "nx,ny,nz,x,y,z,r,g,b": (*[[0.1] * 6] * 3, x, y, z, r, g, b),
    }.items():
        cloud = read(tmp_path, f"{header}\n{rows(*columns)}\n", "a.csv")
        assert np.array_equal(cloud.xyz, XYZ) and np.array_equal(cloud.rgb, RGB), header
    cloud = read(tmp_path, f"x,y,z,nx,ny,nz\n{rows(x, y, z, r, g, b)}\n", "a.csv")
    assert cloud.rgb is None and cloud.warnings == []  # the names say so
    tabs = f"\tx\ty\tz\n{rows(range(6), x, y, z)}\n".replace(",", "\t")
    assert np.array_equal(read(tmp_path, tabs, "a.txt").xyz, XYZ)


def test_an_empty_cell_keeps_its_place(tmp_path):
    x, y, z, r, g, b = *XYZ.T, *RGB.T
    text = "x,y,z,label,r,g,b\n" + rows(x, y, z, [""] * 6, r, g, b)
    cloud = read(tmp_path, text, "a.csv")
    assert np.array_equal(cloud.xyz, XYZ) and np.array_equal(cloud.rgb, RGB)
    assert error(tmp_path, "x,y,z\n1,,3\n4,5,6\n", "a.csv").reason == "non_finite"
    assert error(tmp_path, "x,y,z\n,2,3\n4,5,6\n", "a.csv").reason == "non_finite"


def test_headers_that_contradict_their_rows(tmp_path):
    longer = read(tmp_path, "//X Y Z R G B Scalar field\n" + COLORED.replace("\n", " 0.5\n"), "a.txt")
    assert np.array_equal(longer.rgb, RGB) and "8 columns, and its rows have 7" in longer.warnings[0]
    shorter = read(tmp_path, "x y z\n" + COLORED)
    assert np.array_equal(shorter.rgb, RGB) and "3 columns, and its rows have 6" in shorter.warnings[0]
    assert error(tmp_path, "id,u,x,y,z,w\n1,2,3\n4,5,6\n", "a.csv").reason == "corrupt"
    assert "x twice" in str(error(tmp_path, "x,x,y,z\n1,2,3,4\n", "a.csv"))


def test_words_above_the_points_are_skipped_aloud(tmp_path):
    cloud = read(tmp_path, "Scan of the hall\nmade by John, x y z of 3 rooms\n" + PLAIN)
    assert np.array_equal(cloud.xyz, XYZ) and "'Scan of the hall'" in cloud.warnings[0]


def test_pts(tmp_path):
    body = "".join(f"{p[0]} {p[1]} {p[2]} -1200 {c[0]} {c[1]} {c[2]}\n" for p, c in zip(XYZ, RGB, strict=True))
    assert np.array_equal(read(tmp_path, "6\n" + body, "a.pts").rgb, RGB)
    twice = read(tmp_path, f"6\n{body}6\n{body}", "a.pts")  # scans after one another
    assert len(twice.xyz) == 12 and "announces 6" in twice.warnings[0]
    assert error(tmp_path, "7\n" + body, "a.pts").reason == "truncated"
    assert np.array_equal(read(tmp_path, "6\n" + PLAIN, "a.pts").xyz, XYZ)


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [("1,5 2,5 3,5\n", "unsupported", "line 1 has numbers with a decimal comma"),
     ("1,5;2,5;3,5\n4;5;6\n", "unsupported", "decimal comma"),
     ("0 0 0\n1,5 2,5 3,5\n", "unsupported", "line 2 has numbers with a decimal comma"),
     ("x;y;z\n1,5;2,5;3,5\n", "unsupported", "decimal comma"),
     ("1 2 3\n4 5 6 7\n", "corrupt", "line 2 has 4 numbers"), ("1 2 3\n\n4 5\n", "corrupt", "line 3 has 2 numbers"),
     ("# a\n1 2 3\n4 five 6\n", "corrupt", "line 3 holds 'five'"), ("1 2 3x\n4 5 6\n", "corrupt", "line 1"),
     ("3\n\nC 0.0 0.0 0.0\nH 1.0 0.0 0.0\n", "corrupt", "'C 0.0 0.0 0.0'"), ("1\n2\n3\n", "corrupt", "1 numbers"),
     ("alpha\nbeta\nnot found\n", "corrupt", "not numbers"), ("1 2\n3 4\n", "corrupt", "2 numbers"),
     ("# only\n# comments\n", "empty", "no point"), ("500\n", "empty", "no point"), ("\0\0\0\0", "empty", "no point"),
     ("x,y,z,r,g,b\n", "empty", "no point"), (" ".join(["1"] * 200), "corrupt", "200 numbers")],
)  # fmt: skip
def test_what_is_wrong_is_said(tmp_path, text, reason, words):
    found = error(tmp_path, text)
    assert found.reason == reason and words in str(found)


def test_limits_hold_before_memory_is_taken(tmp_path):
    assert error(tmp_path, PLAIN, max_points=5).reason == "too_many_points"
    assert len(read(tmp_path, PLAIN + "\n" * 100, max_points=6).xyz) == 6
    assert "65536 characters" in str(error(tmp_path, PLAIN + "1 " * 40_000))
    assert "65536 characters" in str(error(tmp_path, "1" * 70_000))


@pytest.fixture(scope="module")
def isolation() -> Iterator[Isolation]:
    isolation = Isolation(["modeling_ulip2.geometry.points"], seconds=120, megabytes=1024, kinds=[PointCloud])
    yield isolation
    isolation.close()


@pytest.mark.parametrize(
    "hostile",
    ["a\n" * 5_000_000, "#\n" * 5_000_000, "\n" * 10_000_000, "# x\n" * 2_500_000, " " * 10_000_000, "1 " * 5_000_000,
     "1\n" * 5_000_000, "1,5 a b\n" * 1_250_000, "x,y,z\n" * 1_700_000, "1 2 3\n" + "," * 9_999_990,
     "1 2 3\n" + "/" * 9_999_990, "1 2 3\n" + (" " * 60_000 + "\n") * 160],
    ids=["words", "comments", "blank", "names", "one line", "one row", "counts", "commas", "headers", "cells",
         "slashes", "spaces"],
)  # fmt: skip
def test_hostile_headers_end_in_linear_time_and_memory(isolation: Isolation, tmp_path, hostile):
    """Ten megabytes each, in a process whose time and memory are limited; what is quadratic would take hours."""
    (tmp_path / "a.xyz").write_text(hostile)
    try:
        assert len(isolation.call(read_cloud, tmp_path / "a.xyz").xyz) == 1
    except MeshError as error:
        assert error.reason in ("corrupt", "empty")
