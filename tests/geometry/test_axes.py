"""Up axes: the turns themselves, and what formats and callers say about files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.geometry import read_mesh, read_shape
from modeling_ulip2.geometry.axes import UP_AXES, resolve_up_axis, rotation_to_y_up, turn_mesh, turn_to_y_up
from tests.dataset_scripts.shapes import write_box
from tests.geometry.builders import triangle_gltf

UP = {"y": (0, 1, 0), "z": (0, 0, 1), "-z": (0, 0, -1), "x": (1, 0, 0)}


@pytest.mark.parametrize("axis", UP_AXES)
def test_the_axis_becomes_y_by_a_rotation(axis: str) -> None:
    assert turn_to_y_up(np.array(UP[axis]), axis).tolist() == [0, 1, 0]
    rotation = rotation_to_y_up(axis)
    assert np.linalg.det(rotation) == pytest.approx(1) and np.array_equal(rotation @ rotation.T, np.eye(3))
    points = np.random.default_rng(0).normal(size=(7, 3)) + 4e6
    assert np.array_equal(points @ rotation.T, turn_to_y_up(points, axis))  # to the last digit


def test_what_is_up_in_a_file() -> None:
    assert [resolve_up_axis(name) for name in ("a.GLB", "a.gltf", "a.obj", "a.ply")] == ["y", "y", None, None]
    assert resolve_up_axis("a.glb", "auto") == "y" and resolve_up_axis("a.glb", "-z") == "-z"
    assert resolve_up_axis("a.obj", "auto") is None and resolve_up_axis("a.obj", "x") == "x"
    with pytest.raises(ValueError, match="'-z', 'x', 'auto', got 'Z'"):
        resolve_up_axis("a.obj", "Z")


@pytest.mark.parametrize("axis", UP_AXES)
def test_a_shape_that_lies_is_turned_once(tmp_path: Path, axis: str) -> None:
    """The same object, stored with any axis up, gives the same point values, whatever the model's own setting."""
    upright = read_mesh(write_box(tmp_path / "box.obj")).vertices * [1, 2, 3]
    lying = upright @ rotation_to_y_up(axis)  # the turn back
    cloud = tmp_path / "lying.npy"
    np.save(cloud, lying)
    values = {}
    for own in UP_AXES:
        extractor = Ulip2FeatureExtractor(num_points=len(lying), in_channels=3, up_axis=own)
        shape = read_shape(cloud, 10, up_axis=axis)
        assert shape.up_axis == "y" and np.array_equal(shape.xyz, upright)
        values[own] = extractor([shape.cloud])["point_values"]
        assert np.array_equal(values[own], values["y"])
        unsaid = read_shape(cloud, 10, up_axis="auto")
        assert unsaid.up_axis == "auto" and np.array_equal(unsaid.xyz, lying)
        expected = turn_to_y_up(lying, own) if own != axis else upright
        plain = Ulip2FeatureExtractor(num_points=len(lying), in_channels=3)
        assert np.array_equal(extractor([unsaid.cloud])["point_values"], plain(expected)["point_values"])
        assert np.array_equal(extractor(lying, up_axis=axis)["point_values"], values["y"])
        assert np.array_equal(extractor({"xyz": lying, "up_axis": axis}, up_axis="x")["point_values"], values["y"])


def test_gltf_is_y_up_for_every_model(tmp_path: Path) -> None:
    path = triangle_gltf().write(tmp_path / "a.glb")
    shape = read_shape(path, 50)
    assert shape.up_axis == "y" and np.abs(shape.xyz[:, 2]).max() == 0
    y, z = (Ulip2FeatureExtractor(num_points=50, in_channels=3, up_axis=own) for own in ("y", "z"))
    assert np.array_equal(y(shape.cloud)["point_values"], z(shape.cloud)["point_values"])
    forced = read_shape(path, 50, up_axis="x")
    assert np.array_equal(forced.xyz, turn_to_y_up(shape.xyz, "x"))
    assert np.array_equal(forced.mesh.vertices, turn_to_y_up(shape.mesh.vertices, "x"))


def test_a_mesh_turns_with_its_normals(tmp_path: Path) -> None:
    mesh = read_mesh(write_box(tmp_path / "box.obj"))
    mesh.normals = np.tile(np.float32([0, 0, 1]), (len(mesh.vertices), 1))
    turned = turn_mesh(mesh, "z")
    assert np.array_equal(turned.normals, np.tile(np.float32([0, 1, 0]), (len(mesh.vertices), 1)))
    assert turned.normals.dtype == np.float32 and turn_mesh(mesh, "y") is mesh
    np.testing.assert_array_equal(turned.vertices, turn_to_y_up(mesh.vertices, "z"))


def test_axes_that_are_none() -> None:
    for call in (
        lambda: Ulip2FeatureExtractor(up_axis="auto"),
        lambda: Ulip2FeatureExtractor()(np.eye(3), up_axis="up"),
        lambda: Ulip2FeatureExtractor()({"xyz": np.eye(3), "up_axis": "-y"}),
    ):
        with pytest.raises(ValueError, match="up_axis must be one of"):
            call()
