import struct

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError, read_mesh, sample_points

from .builders import png

HEAD = "ply\nformat {format} 1.0\ncomment made by a test\nelement vertex {n}\n"
XYZ = "property float x\nproperty float y\nproperty float z\n"
FACE = "element face {n}\nproperty list uchar int vertex_indices\n"
SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]


def header(format: str, vertices: int, faces: int, vertex: str = XYZ, face: str = FACE) -> str:
    return HEAD.format(format=format, n=vertices) + vertex + face.format(n=faces) + "end_header\n"


def write(tmp_path, content: str | bytes):
    path = tmp_path / "a.ply"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def error_of(path, **kwargs) -> str:
    with pytest.raises(MeshError) as error:
        read_mesh(path, **kwargs)
    return error.value.reason


def binary(polygons: list[tuple[int, ...]], order: str = "<") -> bytes:
    kind = {"<": "binary_little_endian", ">": "binary_big_endian"}[order]
    data = header(kind, 4, len(polygons)).encode()
    for vertex in SQUARE:
        data += struct.pack(order + "3f", *vertex)
    for polygon in polygons:
        data += struct.pack(f"{order}B{len(polygon)}i", len(polygon), *polygon)
    return data


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "polygons", [[(0, 1, 2), (0, 2, 3)], [(0, 1, 2, 3)], [(0, 1, 2), (0, 1, 2, 3)], [(0, 1, 2, 3), (0, 1, 3)]]
)
def test_binary_polygons_of_equal_and_of_mixed_sizes(tmp_path, order, polygons):
    mesh = read_mesh(write(tmp_path, binary(polygons, order)))
    assert mesh.num_faces == sum(len(polygon) - 2 for polygon in polygons)
    assert mesh.face_areas().sum() == pytest.approx(sum((len(polygon) - 2) / 2 for polygon in polygons))


def test_ascii_of_mixed_sizes_and_other_columns(tmp_path):
    vertex = XYZ + "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar alpha\n"
    rows = "".join(f"{x} {y} {z} 10 20 30 255\n" for x, y, z in SQUARE)
    text = header("ascii", 4, 2, vertex) + rows + "4 0 1 2 3\n3 0 1 2\n"
    mesh = read_mesh(write(tmp_path, text))
    assert mesh.num_faces == 3
    assert (sample_points(mesh, 20, 0)[1] == [10, 20, 30]).all()  # PLY colors are sRGB


def test_float_colors_in_both_ranges(tmp_path):
    vertex = XYZ + "property float r\nproperty float g\nproperty float b\n"
    for color in ("0.2 0.4 0.6", "51 102 153"):
        rows = "".join(f"{x} {y} {z} {color}\n" for x, y, z in SQUARE)
        mesh = read_mesh(write(tmp_path, header("ascii", 4, 1, vertex) + rows + "3 0 1 2\n"))
        assert (sample_points(mesh, 20, 0)[1] == [51, 102, 153]).all()


def test_face_colors(tmp_path):
    face = FACE + "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    rows = "".join(f"{x} {y} {z}\n" for x, y, z in SQUARE)
    mesh = read_mesh(write(tmp_path, header("ascii", 4, 2, face=face) + rows + "3 0 1 2 255 0 0\n3 0 2 3 0 0 255\n"))
    xyz, rgb = sample_points(mesh, 300, 0)
    assert (rgb[xyz[:, 0] > xyz[:, 1]] == [255, 0, 0]).all() and (rgb[xyz[:, 0] < xyz[:, 1]] == [0, 0, 255]).all()


def textured(tmp_path, vertex: str, face: str, rows: str, faces: str):
    text = header("ascii", 4, 1, vertex, face).replace("comment made by a test", "comment TextureFile my image.png")
    (tmp_path / "my image.png").write_bytes(png([[[255, 0, 0]] * 2, [[0, 0, 255]] * 2]))
    xyz, rgb = sample_points(read_mesh(write(tmp_path, text + rows + faces)), 1000, 0)
    middle = (xyz[:, 0] > 0.3) & (xyz[:, 0] < 0.7)
    assert (rgb[middle & (xyz[:, 1] > 0.55) & (xyz[:, 1] < 0.7), 0] > 200).all()
    assert (rgb[middle & (xyz[:, 1] < 0.45) & (xyz[:, 1] > 0.3), 2] > 200).all()
    return rgb


def test_texture_coordinates_of_vertices_and_of_faces(tmp_path):
    rows = "".join(f"{x} {y} {z} {x} {y}\n" for x, y, z in SQUARE)
    textured(tmp_path, XYZ + "property float s\nproperty float t\n", FACE, rows, "4 0 1 2 3\n")
    rows = "".join(f"{x} {y} {z}\n" for x, y, z in SQUARE)
    face = FACE + "property list uchar float texcoord\n"
    textured(tmp_path, XYZ, face, rows, "4 0 1 2 3 8 0 0 1 0 1 1 0 1\n")


def test_vertex_colors_follow_vertices_that_a_texture_splits(tmp_path):
    vertex = XYZ + "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    rows = "".join(f"{x} {y} {z} 255 0 255\n" for x, y, z in SQUARE)
    face = FACE + "property list uchar float texcoord\n"
    rgb = textured(tmp_path, vertex, face, rows, "4 0 1 2 3 8 0 0 1 0 1 1 0 1\n")
    assert (rgb[:, 1] == 0).all()


def test_normals(tmp_path):
    vertex = XYZ + "property float nx\nproperty float ny\nproperty float nz\n"
    rows = "".join(f"{x} {y} {z} 0 3 0\n" for x, y, z in SQUARE)
    mesh = read_mesh(write(tmp_path, header("ascii", 4, 1, vertex) + rows + "4 0 1 2 3\n"))
    np.testing.assert_allclose(mesh.normals, [[0, 1, 0]] * 4)


def test_triangle_strips(tmp_path):
    strip = "element tristrips 1\nproperty list int int vertex_indices\n"
    points = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0), (0, 2, 0)]
    rows = "".join(f"{x} {y} {z}\n" for x, y, z in points)
    mesh = read_mesh(write(tmp_path, header("ascii", 5, 1, face=strip) + rows + "9 0 1 2 3 4 -1 0 1 2\n"))
    assert mesh.num_faces == 4 and (mesh.face_normals()[:, 2] > 0).all()


def test_headers_that_promise_too_much_are_refused_before_allocation(tmp_path):
    for kind in ("ascii", "binary_little_endian"):
        assert error_of(write(tmp_path, header(kind, 4, 10**9))) == "too_many_faces"
        assert error_of(write(tmp_path, header(kind, 10**12, 1))) == "truncated"
        assert error_of(write(tmp_path, header(kind, 4, 10**6))) == "truncated"
    # One list of two thousand million corners.
    data = header("binary_little_endian", 4, 1, face=FACE.replace("uchar", "uint")).encode()
    data += b"\0" * 48 + struct.pack("<I", 2 * 10**9)
    assert error_of(write(tmp_path, data)) == "truncated"


@pytest.mark.parametrize("cut", [1, 5, 13, 30])
def test_truncated_tables(tmp_path, cut):
    for polygons in ([(0, 1, 2), (0, 2, 3)], [(0, 1, 2), (0, 1, 2, 3)]):
        assert error_of(write(tmp_path, binary(polygons)[:-cut])) == "truncated"
    rows = "".join(f"{x} {y} {z}\n" for x, y, z in SQUARE)
    for faces in ("3 0 1 2\n3 0 2 3\n", "3 0 1 2\n4 0 1 2 3\n"):
        text = header("ascii", 4, 2) + rows + faces
        assert error_of(write(tmp_path, text[: -2 - cut])) == "truncated"


def test_other_bad_files(tmp_path):
    rows = "".join(f"{x} {y} {z}\n" for x, y, z in SQUARE)
    cases = {
        "hello": "unsupported",
        "ply\nformat ascii 1.0\n": "corrupt",
        header("ascii", 4, 1).replace("float x", "quaternion x") + rows + "3 0 1 2\n": "corrupt",
        header("ascii", 4, 1).replace("vertex 4", "vertex four") + rows + "3 0 1 2\n": "corrupt",
        header("ascii", 4, 0) + rows: "empty",
        header("ascii", 0, 0): "empty",
        header("ascii", 4, 1) + rows + "3 0 1 7\n": "corrupt",
        header("ascii", 4, 1) + rows + "3 0 1 -1\n": "corrupt",
        header("ascii", 4, 1) + rows.replace("1 1 0", "1 nan 0") + "3 0 1 2\n": "non_finite",
    }
    for text, reason in cases.items():
        assert error_of(write(tmp_path, text)) == reason, text
    text = (
        header("ascii", 4, 1).replace("comment made by a test", "comment TextureFile ../up.png") + rows + "3 0 1 2\n"
    )
    assert error_of(write(tmp_path, text)) == "external_uri"
    assert read_mesh(tmp_path / "a.ply", strict=False).warnings
