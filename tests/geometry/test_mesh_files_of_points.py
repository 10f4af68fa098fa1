"""Points in the formats of meshes, instances of glTF, and meshes far from the origin."""

from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError, Renderer, camera_ring, read_mesh, read_points, sample_points
from modeling_ulip2.geometry.points import read_cloud
from modeling_ulip2.geometry.shapes import read_shape

from .builders import TRIANGLE, Gltf

CASES = Path(__file__).parent / "cases"
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32)


def empty(path, reader=read_mesh, **kwargs) -> str:
    with pytest.raises(MeshError) as error:
        reader(path, **kwargs)
    assert error.value.reason == "empty"
    return str(error.value)


def test_the_case_is_a_cloud():
    assert "points" in empty(CASES / "c11_points.glb")
    shape = read_shape(CASES / "c11_points.glb", 100)
    assert shape.mesh is None and len(shape.xyz) == len(read_points(CASES / "c11_points.glb")[0]) > 0


@pytest.mark.parametrize("suffix", [".glb", ".gltf"])
def test_points_of_gltf(tmp_path, suffix):
    document = Gltf()
    colors = np.array([[255, 0, 0, 255]] * 5, np.uint8)
    colored = document.mesh({"POSITION": CORNERS, "COLOR_0": document.accessor(colors, normalized=True)}, mode=0)
    document.node(mesh=colored, translation=[1e6, 0, 0], scale=[2, 2, 2])
    blue = document.material(pbrMetallicRoughness={"baseColorFactor": [0, 0, 1, 1]})
    document.node(mesh=document.mesh({"POSITION": CORNERS}, np.array([4, 1], np.uint16), mode=0, material=blue))
    path = document.write(tmp_path / f"a{suffix}")
    assert "points" in empty(path)
    xyz, rgb = read_points(path)
    np.testing.assert_allclose(xyz[:5], CORNERS * 2.0 + [1e6, 0, 0])
    np.testing.assert_allclose(xyz[5:], CORNERS[[4, 1]])
    np.testing.assert_array_equal(rgb, [[255, 0, 0]] * 5 + [[0, 0, 255]] * 2)
    assert read_shape(path, 9).up_axis == "y"

    document.node(mesh=document.mesh({"POSITION": TRIANGLE}))  # a mesh wins
    mesh = read_mesh(document.write(path))
    assert mesh.num_faces == 1 and "points" in mesh.warnings[0]
    assert read_shape(path, 9).mesh is not None and read_shape(path, 9).warnings
    assert len(read_cloud(path).xyz) == 7 and "triangles" in read_cloud(path).warnings[0]
    with pytest.raises(MeshError) as error:
        read_points(path, max_points=6)
    assert error.value.reason == "too_many_points"


def test_points_of_obj(tmp_path):
    path = tmp_path / "a.obj"
    vertices = "".join(f"v {x} {y} {z} 255 0 0\n" for x, y, z in CORNERS)
    path.write_text(vertices + "p 1 2\np -1 # last\n")
    assert "points" in empty(path)
    xyz, rgb = read_points(path)
    np.testing.assert_array_equal(xyz, CORNERS[[0, 1, 4]])
    assert (rgb == [255, 0, 0]).all() and len(read_shape(path, 9).xyz) == 3
    path.write_text(vertices)  # vertices alone are a cloud, too
    assert len(read_shape(path, 9).xyz) == 5
    path.write_text(vertices + "p 1\nf 1 2 3\nl 1 2\n")
    assert "points" in read_mesh(path).warnings[0] and read_shape(path, 9).mesh is not None
    path.write_text(vertices + "f 1 2 3\n")
    assert read_mesh(path).warnings == [] and "read_mesh" in empty(path, read_points)
    for wrong in ("p 6\n", "p 0\n", "p -9\n", "p x\n"):
        path.write_text(vertices + wrong)
        with pytest.raises(MeshError) as error:
            read_points(path)
        assert error.value.reason == "corrupt"
    path.write_text("# nothing\n")
    empty(path, read_points)


@pytest.mark.parametrize("required", [False, True])
def test_instances_of_gltf(tmp_path, required):
    document = Gltf()
    attributes = {
        "TRANSLATION": document.accessor(np.array([[0, 0, 0], [5, 0, 0], [0, 0, 9]], np.float32)),
        "SCALE": document.accessor(np.array([[1, 1, 1], [2, 2, 2], [-1, 1, 1]], np.float32)),
        "ROTATION": document.accessor(
            np.array([[0, 0, 0, 127], [0, 0, 90, 90], [0, 0, 0, 127]], np.int8), normalized=True
        ),
    }
    normals = np.array([[0, 0, 1]] * 3, np.float32)
    mesh = document.mesh({"POSITION": TRIANGLE, "NORMAL": normals})
    extension = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    document.node(mesh=mesh, extensions=extension, translation=[0, 100, 0])
    document.header["extensionsUsed"] = ["EXT_mesh_gpu_instancing"]
    if required:
        document.header["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]
    path = document.write(tmp_path / "a.glb")
    read = read_mesh(path)
    assert read.num_faces == 3 and read.face_areas().sum() == pytest.approx(0.5 + 2 + 0.5, rel=1e-3)
    np.testing.assert_allclose(read.vertices[3:6], [[5, 100, 0], [5, 102, 0], [3, 100, 0]], atol=0.02)
    assert (read.face_normals()[:, 2] > 0).all() and (read.normals[:, 2] > 0.99).all()
    with pytest.raises(MeshError) as error:
        read_mesh(path, max_faces=2)
    assert error.value.reason in ("too_many_faces", "too_large")
    attributes["SCALE"] = document.accessor(np.ones((2, 3), np.float32))
    with pytest.raises(MeshError) as error:
        read_mesh(document.write(path))
    assert error.value.reason == "corrupt"


OFFSET = np.array([448262.0, 5411932.0, 1234567.0])


def far_files(folder: Path, offset: np.ndarray) -> list[Path]:
    """One bumpy patch a meter wide, in every format that can hold its digits."""
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 9), np.linspace(0, 1, 9), indexing="ij"), axis=-1).reshape(-1, 2)
    points = np.column_stack([grid, 0.2 * np.sin(7 * grid[:, 0]) * np.cos(5 * grid[:, 1])])
    quads = np.array([[i * 9 + j, i * 9 + 9 + j, i * 9 + 10 + j, i * 9 + j + 1] for i in range(8) for j in range(8)])
    rows = [" ".join(f"{value:.6f}" for value in point) for point in points + offset]
    (folder / "a.obj").write_text("".join(f"v {row}\n" for row in rows) + "".join(
        "f " + " ".join(map(str, quad + 1)) + "\n" for quad in quads))  # fmt: skip
    faces = "".join("4 " + " ".join(map(str, quad)) + "\n" for quad in quads)
    (folder / "a.off").write_text(f"OFF\n81 64 0\n{chr(10).join(rows)}\n{faces}")
    head = "ply\nformat {} 1.0\nelement vertex 81\nproperty {t} x\nproperty {t} y\nproperty {t} z\n"
    head += "element face 64\nproperty list uchar int vertex_indices\nend_header\n"
    (folder / "a.ply").write_text(head.format("ascii", t="float") + "\n".join(rows) + "\n" + faces)
    binary = np.zeros(64, [("n", "u1"), ("v", "<i4", 4)])
    binary["n"], binary["v"] = 4, quads
    (folder / "b.ply").write_bytes(
        head.format("binary_little_endian", t="double").encode() + (points + offset).tobytes() + binary.tobytes()
    )
    corners = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    facet = "facet normal 0 0 1\nouter loop\n{}endloop\nendfacet\n"
    (folder / "a.stl").write_text(
        "solid\n" + "".join(facet.format("".join(f"vertex {rows[i]}\n" for i in c)) for c in corners) + "endsolid\n"
    )
    document = Gltf()
    mesh = document.mesh({"POSITION": points.astype(np.float32)}, corners.reshape(-1).astype(np.uint16))
    child = document.node(root=False, mesh=mesh, translation=(offset / 2).tolist())
    document.node(children=[child], translation=(offset / 2).tolist())
    document.write(folder / "a.glb")
    return sorted(folder.iterdir())


def test_meshes_far_from_the_origin_keep_their_digits(tmp_path):
    from modeling_ulip2.building.stages.read import ReadMesh, SamplePoints

    (tmp_path / "near").mkdir()
    (tmp_path / "far").mkdir()
    renderer = Renderer("numba", 64)
    for near, far in zip(
        *(far_files(tmp_path / k, v) for k, v in (("near", 0 * OFFSET), ("far", OFFSET))), strict=True
    ):
        local, remote = read_mesh(near), read_mesh(far)
        np.testing.assert_array_equal(local.faces, remote.faces)
        np.testing.assert_allclose(remote.vertices - OFFSET, local.vertices, atol=2e-6)
        here, there = sample_points(local, 500, 3)[0], sample_points(remote, 500, 3)[0]
        np.testing.assert_allclose(there - OFFSET, here, atol=1e-5)
        here, there = read_shape(near, 500).xyz, read_shape(far, 500, up_axis="y").xyz
        np.testing.assert_allclose(there - OFFSET, here, atol=1e-5)
        pictures = [renderer.render(mesh, camera_ring(2)).rgb.astype(int) for mesh in (local, remote)]
        assert np.abs(pictures[0] - pictures[1]).mean() < 0.5

        row = {"id": "1", "path": f"far/{far.name}", "rotation": ""}
        row |= ReadMesh(str(tmp_path)).process(row)
        packed = SamplePoints(500, 3).process(row)
        own = SamplePoints(500, 3).process(row | {"mesh": local})
        centered = [c["xyz"].astype(float) - c["xyz"].astype(float).mean(axis=0) for c in (packed, own)]
        np.testing.assert_allclose(*centered, atol=2e-3)  # half precision
