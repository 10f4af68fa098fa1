"""glTF: scenes, accessors, skins, compression, and what is broken."""

import json
import struct

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError, read_mesh

from .builders import TRIANGLE, Gltf, error_of, triangle_gltf

QUARTER_TURN_ABOUT_Z = [0.0, 0.0, np.sin(np.pi / 4), np.cos(np.pi / 4)]


def test_transforms_multiply_down_the_tree(tmp_path):
    gltf = Gltf()
    child = gltf.node(root=False, mesh=gltf.mesh({"POSITION": TRIANGLE}), translation=[1, 0, 0], scale=[2, 2, 2])
    gltf.node(children=[child], rotation=QUARTER_TURN_ABOUT_Z, translation=[0, 0, 5])
    mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.vertices, [[0, 1, 5], [0, 3, 5], [-2, 1, 5]], atol=1e-12)


def test_a_matrix_is_stored_column_by_column(tmp_path):
    gltf = Gltf()
    matrix = np.array([[0, 0, 1, 7], [1, 0, 0, 8], [0, 1, 0, 9], [0, 0, 0, 1]], float)
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE}), matrix=matrix.T.reshape(-1).tolist())
    mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.vertices, TRIANGLE @ matrix[:3, :3].T + [7, 8, 9])


def test_a_mirror_keeps_faces_and_normals_outside(tmp_path):
    normals = np.tile(np.array([0, 0, 1], np.float32), (3, 1))
    for scale in ([-1, 1, 1], [1, 1, -1], [-2, -2, -2]):
        gltf = Gltf()
        gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE, "NORMAL": normals}), scale=scale)
        mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
        outside = [0, 0, np.sign(scale[2])]
        np.testing.assert_allclose(mesh.face_normals()[0] / np.linalg.norm(mesh.face_normals()[0]), outside)
        np.testing.assert_allclose(mesh.normals, np.tile(outside, (3, 1)), atol=1e-7)


def test_normals_turn_with_uneven_scales(tmp_path):
    slope = np.array([[0, 0, 0], [1, -1, 0], [0, 0, 1]], np.float32)  # in the plane x + y = 0
    normal = np.tile(np.array([1, 1, 0], np.float32), (3, 1))
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh({"POSITION": slope, "NORMAL": normal}), scale=[2, 1, 1])
    mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    flat = mesh.face_normals()[0]
    np.testing.assert_allclose(np.abs(mesh.normals @ flat / np.linalg.norm(flat)), 1.0, atol=1e-6)


def test_instances_share_a_mesh_and_only_the_scene_is_drawn(tmp_path):
    gltf = Gltf()
    shared = gltf.mesh({"POSITION": TRIANGLE})
    gltf.node(mesh=shared)
    gltf.node(mesh=shared, translation=[5, 0, 0])
    gltf.node(root=False, mesh=shared, translation=[50, 0, 0])
    mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
    assert mesh.num_faces == 2 and mesh.bounds[1, 0] == 6


def test_strips_fans_and_missing_indices(tmp_path):
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
    around = square[[0, 1, 3, 2]]
    for mode, points in ((5, square), (6, around)):
        gltf = Gltf()
        gltf.node(mesh=gltf.mesh({"POSITION": points}, mode=mode))
        mesh = read_mesh(gltf.write(tmp_path / "a.glb"))
        np.testing.assert_allclose(mesh.face_normals(), [[0, 0, 1], [0, 0, 1]])
        assert mesh.face_areas().sum() == pytest.approx(1.0)


def test_points_and_lines_alone_are_no_mesh(tmp_path):
    gltf = Gltf()
    gltf.node(mesh=gltf.mesh({"POSITION": TRIANGLE}, mode=1))
    assert error_of(gltf, tmp_path).reason == "empty"


def test_sparse_quantized_and_strided_accessors(tmp_path):
    # Positions as normalized 16-bit integers, item 2 replaced by a sparse value.
    stored = np.array([[0, 0, 0], [32767, 0, 0], [0, 0, 32767]], np.int16)
    gltf = Gltf()
    accessor = gltf.accessor(stored, normalized=True)
    rows, values = (
        gltf.view(np.array([2], np.uint8).tobytes()),
        gltf.view(np.array([[0, 32767, 0]], np.int16).tobytes()),
    )
    gltf.header["accessors"][accessor]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": rows, "componentType": 5121},
        "values": {"bufferView": values},
    }
    gltf.header["extensionsRequired"] = ["KHR_mesh_quantization"]
    gltf.node(mesh=gltf.mesh({"POSITION": accessor}))
    np.testing.assert_allclose(read_mesh(gltf.write(tmp_path / "a.glb")).vertices, TRIANGLE)

    gltf = Gltf()
    interleaved = np.concatenate([TRIANGLE, np.full((3, 1), 9, np.float32)], axis=1)
    view = gltf.view(interleaved.tobytes())
    gltf.header["bufferViews"][view]["byteStride"] = 16
    gltf.header["accessors"].append({"bufferView": view, "componentType": 5126, "count": 3, "type": "VEC3"})
    gltf.node(mesh=gltf.mesh({"POSITION": 0}))
    np.testing.assert_allclose(read_mesh(gltf.write(tmp_path / "b.glb")).vertices, TRIANGLE)


def skinned(weights: np.ndarray) -> Gltf:
    """A triangle bound to a joint 10 to the right of where it was bound; the node's own place must not count."""
    gltf = Gltf()
    inverse = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    inverse[:, 0, 3] = [-1.0, 0.0]
    matrices = gltf.accessor(inverse.transpose(0, 2, 1).reshape(2, 16))
    attributes = {"POSITION": TRIANGLE, "JOINTS_0": np.zeros((3, 4), np.uint8), "WEIGHTS_0": weights}
    joints = [gltf.node(translation=[11, 0, 0]), gltf.node(translation=[0, 100, 0])]
    gltf.header["skins"] = [{"joints": joints, "inverseBindMatrices": matrices}]
    gltf.node(mesh=gltf.mesh(attributes), skin=0, translation=[-1000, 0, 0])
    return gltf


def test_a_skin_is_baked_in_its_rest_pose(tmp_path):
    weights = np.tile(np.array([1, 0, 0, 0], np.float32), (3, 1))
    mesh = read_mesh(skinned(weights).write(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.vertices, TRIANGLE + [10, 0, 0], atol=1e-6)


def test_weights_that_are_not_numbers_follow_the_first_joint(tmp_path):
    mesh = read_mesh(skinned(np.full((3, 4), np.nan, np.float32)).write(tmp_path / "a.glb"))
    np.testing.assert_allclose(mesh.vertices, TRIANGLE + [10, 0, 0], atol=1e-6)


def test_default_morph_weights_are_applied(tmp_path):
    gltf = Gltf()
    moved = gltf.accessor(np.tile(np.array([0, 0, 4], np.float32), (3, 1)))
    mesh = gltf.mesh({"POSITION": TRIANGLE}, targets=[{"POSITION": moved}])
    gltf.header["meshes"][mesh]["weights"] = [0.5]
    gltf.node(mesh=mesh)
    np.testing.assert_allclose(read_mesh(gltf.write(tmp_path / "a.glb")).vertices, TRIANGLE + [0, 0, 2])


def test_draco(tmp_path, monkeypatch):
    draco = pytest.importorskip("DracoPy")
    blob = draco.encode(TRIANGLE, faces=np.array([[0, 1, 2]], np.uint32), quantization_bits=14)
    gltf = Gltf()
    view = gltf.view(blob)
    gltf.header["accessors"] += [
        {"componentType": 5126, "count": 3, "type": "VEC3"}, {"componentType": 5125, "count": 3, "type": "SCALAR"},
    ]  # fmt: skip
    extension = {"bufferView": view, "attributes": {"POSITION": 0}}
    mesh = gltf.mesh({"POSITION": 0}, extensions={"KHR_draco_mesh_compression": extension})
    gltf.header["meshes"][mesh]["primitives"][0]["indices"] = 1
    gltf.header["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    gltf.node(mesh=mesh)
    path = gltf.write(tmp_path / "a.glb")
    decoded = read_mesh(path)
    assert decoded.num_faces == 1
    np.testing.assert_allclose(np.sort(decoded.vertices.sum(axis=1)), [0, 1, 1], atol=1e-3)

    # The blob's own count is checked before it is decoded, whatever the accessors say.
    with pytest.raises(MeshError) as error:
        read_mesh(path, max_faces=0)
    assert error.value.reason == "too_many_faces"
    monkeypatch.setitem(__import__("sys").modules, "DracoPy", None)
    assert error_of(gltf, tmp_path).reason == "draco"
    assert 'pip install "modeling-ulip2[mesh]"' in str(error_of(gltf, tmp_path))


def test_draco_counts_are_read_from_the_header():
    draco = pytest.importorskip("DracoPy")
    from modeling_ulip2.geometry.gltf_data import _draco_faces

    from .builders import CUBE_FACES, CUBE_VERTICES, sphere

    big = sphere(20)
    for vertices, faces in ((CUBE_VERTICES, CUBE_FACES), (big.vertices, big.faces)):
        for level in (1, 10):
            blob = draco.encode(vertices.astype(np.float32), faces=faces.astype(np.uint32), compression_level=level)
            assert _draco_faces(blob) >= len(draco.decode(blob).faces)
            assert _draco_faces(blob) <= len(faces)


def test_meshopt_and_unknown_required_extensions_are_refused(tmp_path):
    for name in ("EXT_meshopt_compression", "KHR_meshopt_compression", "ACME_shape"):
        gltf = triangle_gltf()
        gltf.header["extensionsRequired"] = [name]
        error = error_of(gltf, tmp_path)
        assert error.reason == "unsupported" and name in str(error)

    gltf = triangle_gltf()
    gltf.header["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": {"buffer": 0}}
    gltf.header["bufferViews"][0]["buffer"] = 1
    gltf.header["buffers"] = [{"byteLength": len(gltf.binary)}, {"byteLength": len(gltf.binary)}]
    assert error_of(gltf, tmp_path).reason == "unsupported"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda h: h["accessors"][0].update(count=10**9), "too_many_faces"),
        (lambda h: h["accessors"][0].update(count=4), "truncated"),
        (lambda h: h["accessors"][0].update(count=-3), "corrupt"),
        (lambda h: h["accessors"][0].update(byteOffset=-4), "truncated"),
        (lambda h: h["accessors"][0].update(componentType=99), "corrupt"),
        (lambda h: h["bufferViews"][0].update(byteLength=10**10), "truncated"),
        (lambda h: h["buffers"][0].update(byteLength=10**10), "truncated"),
        (lambda h: h["nodes"][0].update(children=[0]), "corrupt"),
        (lambda h: h["nodes"][0].update(mesh=7), "corrupt"),
        (lambda h: h["nodes"][0].update(translation=[float("nan"), 0, 0]), "non_finite"),
        (lambda h: h["asset"].update(version="1.0"), "unsupported"),
        (lambda h: h.update(meshes="none"), "corrupt"),
        (lambda h: h["meshes"][0]["primitives"][0].update(material=3), "corrupt"),
    ],
)
def test_broken_structure(tmp_path, change, reason):
    gltf = triangle_gltf()
    gltf.header["buffers"] = [{"byteLength": len(gltf.binary)}]
    change(gltf.header)
    assert error_of(gltf, tmp_path).reason == reason


def test_indices_beyond_the_vertices(tmp_path):
    gltf = triangle_gltf(indices=np.array([0, 1, 9], np.uint32))
    assert error_of(gltf, tmp_path).reason == "corrupt"


def test_faces_are_counted_over_all_instances(tmp_path):
    gltf = Gltf()
    shared = gltf.mesh({"POSITION": TRIANGLE})
    for _ in range(20):
        gltf.node(mesh=shared)
    path = gltf.write(tmp_path / "a.glb")
    assert read_mesh(path, max_faces=20).num_faces == 20
    with pytest.raises(MeshError, match="20 triangles") as error:
        read_mesh(path, max_faces=19)
    assert error.value.reason == "too_many_faces"


def test_containers_that_are_cut_off_or_no_gltf(tmp_path):
    whole = triangle_gltf().write(tmp_path / "whole.glb").read_bytes()
    for cut in (10, 18, 40, len(whole) - 8):
        path = tmp_path / "cut.glb"
        path.write_bytes(whole[:cut])
        with pytest.raises(MeshError) as error:
            read_mesh(path)
        assert error.value.reason == "truncated", cut
    cases = {
        b"not a mesh at all": "corrupt",
        b"glTF" + struct.pack("<II", 1, 100) + b"\0" * 88: "unsupported",
        b"[" * 200_000: "corrupt",
        json.dumps([1]).encode(): "corrupt",
        b"{}": "empty",
    }
    for content, reason in cases.items():
        path = tmp_path / "bad.gltf"
        path.write_bytes(content)
        with pytest.raises(MeshError) as error:
            read_mesh(path)
        assert error.value.reason == reason, content[:20]
