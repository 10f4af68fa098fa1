from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError
from modeling_ulip2.geometry.shapes import read_shape
from tests.dataset_scripts.shapes import write_box


def test_a_mesh_is_sampled(tmp_path: Path):
    shape = read_shape(write_box(tmp_path / "box.obj", color=(1, 0, 0)), 50)
    assert shape.mesh is not None and shape.xyz.shape == (50, 3)
    assert np.abs(shape.xyz).max(axis=1) == pytest.approx(np.ones(50), abs=1e-6)  # on the box's surface
    assert (shape.rgb == [255, 0, 0]).all() and set(shape.cloud) == {"xyz", "rgb"}


def test_points_stay_as_they_are(tmp_path: Path):
    points = np.random.default_rng(0).normal(size=(70, 3)).astype(np.float32)
    np.save(tmp_path / "cloud.npy", points)
    shape = read_shape(tmp_path / "cloud.npy", 50)
    assert shape.mesh is None and set(shape.cloud) == {"xyz"}
    assert np.array_equal(shape.xyz, points)


def test_a_ply_is_a_mesh_if_it_has_faces(tmp_path: Path):
    header = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
    points = "0 0 0\n1 0 0\n0 1 0\n"
    (tmp_path / "cloud.ply").write_text(f"{header}end_header\n{points}")
    faces = "element face 1\nproperty list uchar int vertex_indices\n"
    (tmp_path / "mesh.ply").write_text(f"{header}{faces}end_header\n{points}3 0 1 2\n")
    cloud, mesh = (read_shape(tmp_path / name, 50) for name in ("cloud.ply", "mesh.ply"))
    assert cloud.mesh is None and len(cloud.xyz) == 3
    assert mesh.mesh is not None and len(mesh.xyz) == 50


def test_limits(tmp_path: Path):
    box = write_box(tmp_path / "box.obj")
    np.save(tmp_path / "cloud.npy", np.zeros((100, 3)))
    for path, limits, reason in [
        (box, {"max_faces": 5}, "too_many_faces"),
        (box, {"max_bytes": 20}, "too_large"),
        (tmp_path / "cloud.npy", {"max_points": 99}, "too_many_points"),
        (tmp_path / "cloud.npy", {"max_bytes": 99}, "too_large"),
        (tmp_path / "photo.png", {}, "unsupported"),
    ]:
        with pytest.raises(MeshError) as caught:
            read_shape(path, 50, **limits)
        assert caught.value.reason == reason
