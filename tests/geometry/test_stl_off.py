import struct

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError, read_mesh, sample_points

from .builders import CUBE_FACES, CUBE_VERTICES, binary_stl

CUBE = CUBE_VERTICES[CUBE_FACES]  # (12, 3, 3)


def read(tmp_path, name: str, content: bytes | str, **kwargs):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_mesh(path, **kwargs)


def error_of(tmp_path, name: str, content: bytes | str, **kwargs) -> str:
    with pytest.raises(MeshError) as error:
        read(tmp_path, name, content, **kwargs)
    return error.value.reason


def ascii_stl(facets: np.ndarray, name: str = "vertex facet cube") -> str:
    lines = [f"solid {name}"]
    for corners in facets:
        lines += [" facet normal 0 0 1e-1", "  outer loop"]
        lines += ["   vertex " + " ".join(f"{x:.6e}" for x in corner) for corner in corners]
        lines += ["  endloop", " endfacet"]
    return "\n".join([*lines, f"endsolid {name}", ""])


@pytest.mark.parametrize("header", [b"", b"solid that is binary"])
def test_binary_stl(tmp_path, header):
    mesh = read(tmp_path, "a.stl", binary_stl(CUBE, header=header))
    np.testing.assert_array_equal(mesh.vertices[mesh.faces], CUBE)
    assert mesh.normals is None and mesh.face_colors is None


@pytest.mark.parametrize(
    "change", [str, str.upper, lambda text: text.replace("\n", "\r\n").replace("facet n", "facet  n")]
)
def test_ascii_stl(tmp_path, change):
    mesh = read(tmp_path, "a.stl", change(ascii_stl(CUBE) + ascii_stl(CUBE + 5, "second")))
    np.testing.assert_allclose(mesh.vertices[mesh.faces], np.concatenate([CUBE, CUBE + 5]), atol=1e-6)


def test_truncated_and_exaggerating_stl(tmp_path):
    whole, text = binary_stl(CUBE), ascii_stl(CUBE)
    assert error_of(tmp_path, "a.stl", whole[:-1]) == "truncated"
    assert error_of(tmp_path, "a.stl", whole[:60]) == "truncated"
    assert error_of(tmp_path, "a.stl", text[: len(text) // 2]) == "truncated"
    assert error_of(tmp_path, "a.stl", whole[:80] + struct.pack("<I", 10**9) + whole[84:]) == "too_many_faces"
    assert error_of(tmp_path, "a.stl", whole[:80] + struct.pack("<I", 10**6) + whole[84:]) == "truncated"
    assert error_of(tmp_path, "a.stl", whole, max_faces=11) == "too_many_faces"
    assert error_of(tmp_path, "a.stl", text, max_faces=11) == "too_many_faces"
    assert error_of(tmp_path, "a.stl", binary_stl(CUBE[:0])) == "empty"
    assert error_of(tmp_path, "a.stl", "solid a\nendsolid a\n") == "empty"
    assert error_of(tmp_path, "a.stl", text.replace("vertex -1.000000e+00", "vertex x", 1)) == "corrupt"
    assert error_of(tmp_path, "a.stl", b"\x89PNG" * 40) in ("truncated", "too_many_faces")
    nan = CUBE.copy()
    nan[3, 1, 2] = np.nan
    assert error_of(tmp_path, "a.stl", binary_stl(nan)) == "non_finite"


def test_stl_colors_of_both_conventions(tmp_path):
    red_low, red_high = 31, 31 << 10
    magics = binary_stl(CUBE, [red_low] * 6 + [1 << 15] * 6, b"COLOR=\x00\xff\x00\xff")
    mesh = read(tmp_path, "a.stl", magics)
    np.testing.assert_allclose(mesh.face_colors[:6, :3], [[1, 0, 0]] * 6)
    np.testing.assert_allclose(mesh.face_colors[6:, :3], [[0, 1, 0]] * 6)
    mesh = read(tmp_path, "a.stl", binary_stl(CUBE, [red_high | 1 << 15] * 12))
    np.testing.assert_allclose(mesh.face_colors[:, :3], [[1, 0, 0]] * 12)


SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"


def test_off_with_glued_counts_comments_and_polygons(tmp_path):
    for text in ("OFF\n4 1 0\n" + SQUARE + "4 0 1 2 3\n", "OFF4 1 0\n" + SQUARE + "4 0 1 2 3\n",
                 "# first\nOFF # second\n\n4 1 0 # third\n" + SQUARE + "4  0 1 2 3\n"):  # fmt: skip
        mesh = read(tmp_path, "a.off", text)
        assert mesh.num_faces == 2 and mesh.face_areas().sum() == pytest.approx(1.0)
        assert (sample_points(mesh, 5, 0)[1] == 255).all()


@pytest.mark.parametrize(
    "colors", [("255 0 0", "0 0 255"), ("1.0 0.0 0.0", "0.0 0.0 1.0"), ("255 0 0 255", "0 0 255")]
)
def test_off_face_colors(tmp_path, colors):
    text = "OFF\n4 2 0\n" + SQUARE + f"3 0 1 2 {colors[0]}\n3 0 2 3 {colors[1]}\n"
    xyz, rgb = sample_points(read(tmp_path, "a.off", text), 300, 0)
    assert (rgb[xyz[:, 0] > xyz[:, 1]] == [255, 0, 0]).all() and (rgb[xyz[:, 0] < xyz[:, 1]] == [0, 0, 255]).all()


@pytest.mark.parametrize("color", ["128 64 0 255", "128 64 0", "0.50196 0.25098 0.0 1.0"])
def test_coff_vertex_colors_are_srgb(tmp_path, color):
    rows = "".join(f"{row} {color}\n" for row in SQUARE.splitlines())
    for word in ("COFF", "OFF"):  # some programs forget the C
        mesh = read(tmp_path, "a.off", f"{word}\n4 1 0\n{rows}4 0 1 2 3\n")
        assert (sample_points(mesh, 20, 0)[1] == [128, 64, 0]).all()


def test_off_normals_are_no_colors(tmp_path):
    rows = "".join(f"{row} 0 0 1\n" for row in SQUARE.splitlines())
    mesh = read(tmp_path, "a.off", f"NOFF\n4 1 0\n{rows}4 0 1 2 3\n")
    np.testing.assert_allclose(mesh.normals, [[0, 0, 1]] * 4)
    assert mesh.vertex_colors is None
    rows = "".join(f"{row} 0 0 1 9 9 9 255\n" for row in SQUARE.splitlines())
    mesh = read(tmp_path, "a.off", f"CNOFF\n4 1 0\n{rows}4 0 1 2 3\n")
    assert (sample_points(mesh, 20, 0)[1] == 9).all()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("OFF\n4 1 0\n" + SQUARE, "truncated"),
        ("OFF\n", "truncated"),
        ("OFF\n4 1000000000 0\n" + SQUARE + "3 0 1 2\n", "too_many_faces"),
        ("OFF\n1000000000 1 0\n" + SQUARE + "3 0 1 2\n", "truncated"),
        ("OFF\n4 1 0\n" + SQUARE + "3 0 1\n", "truncated"),
        ("OFF\n4 1 0\n" + SQUARE + "1000000000 0 1 2\n", "too_many_faces"),
        ("OFF\n4 1 0\n" + SQUARE + "3 0 1 9\n", "corrupt"),
        ("OFF\n4 1 0\n" + SQUARE.replace("1 1 0", "1 one 0") + "3 0 1 2\n", "corrupt"),
        ("OFF\nfour 1 0\n", "corrupt"),
        ("OFF\n-4 -1 0\n", "truncated"),
        ("OFF\n4 1 0\n" + SQUARE.replace("1 1 0", "1 nan 0") + "3 0 1 2\n", "non_finite"),
        ("OFF\n0 0 0\n", "empty"),
        ("4OFF\n4 1 0\n", "unsupported"),
        ("OFF BINARY\n4 1 0\n", "unsupported"),
        ("hello\n", "unsupported"),
    ],
)
def test_bad_off(tmp_path, text, reason):
    assert error_of(tmp_path, "a.off", text) == reason
