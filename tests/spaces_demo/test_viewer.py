from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import trimesh
from rooms.viewer import MANY, cloud_glb, mesh_glb

from modeling_ulip2.geometry import Material, Mesh, read_mesh, sample_points
from tests.geometry.builders import CUBE_FACES, CUBE_VERTICES, cube, quad


def reread(data: bytes, folder: Path) -> Mesh:
    (folder / "shape.glb").write_bytes(data)
    return read_mesh(folder / "shape.glb")


def test_a_mesh_keeps_form_and_material_and_fits_into_the_unit_sphere(tmp_path: Path):
    materials = [Material(base_color=np.float32([1, 0, 0, 1])), Material(base_color=np.float32([0, 0, 1, 1]))]
    mesh = Mesh(CUBE_VERTICES * [5, 5, 10] + 100, CUBE_FACES, materials, np.arange(12) // 6)
    shown = reread(mesh_glb(mesh), tmp_path)
    assert np.linalg.norm(shown.vertices, axis=1).max() == pytest.approx(1, abs=1e-5)
    extent = np.ptp(shown.bounds, axis=0)
    assert extent / extent[0] == pytest.approx([1, 1, 2], abs=1e-5)
    colors = np.stack([material.base_color for material in shown.materials])[shown.face_material]
    assert (colors[:, 0] == 1).sum() == (colors[:, 2] == 1).sum() == 6


def test_a_texture_stands_the_right_way_up(tmp_path: Path):
    texture = np.zeros((4, 4, 4), dtype=np.uint8)
    texture[..., 3] = 255
    texture[:2, :, 0] = 255  # red above, black below
    shown = reread(mesh_glb(quad(Material(texture=texture))), tmp_path)
    xyz, rgb = sample_points(shown, 500)
    height = xyz[:, 1] / np.abs(xyz[:, 1]).max()
    # away from the middle and the edges, where the texture's halves are blended
    assert (rgb[(height > 0.3) & (height < 0.7), 0] > 250).all()
    assert (rgb[(height < -0.3) & (height > -0.7), 0] < 5).all()


@pytest.mark.parametrize("colored", ["vertex_colors", "face_colors"])
def test_colours_of_vertices_and_faces(colored: str, tmp_path: Path):
    count = 8 if colored == "vertex_colors" else 12
    colors = np.tile(np.float32([0, 1, 0, 1]), (count, 1))
    shown = reread(mesh_glb(Mesh(CUBE_VERTICES, CUBE_FACES, **{colored: colors})), tmp_path)
    assert (sample_points(shown, 50)[1] == [0, 255, 0]).all()


@pytest.mark.parametrize("count", [10, MANY + 1])
def test_a_cloud_is_one_bead_a_point(count: int):
    rng = np.random.default_rng(0)
    xyz, rgb = rng.normal(size=(count, 3)) / 4, rng.integers(256, size=(count, 3), dtype=np.uint8)
    (beads,) = trimesh.load(io.BytesIO(cloud_glb(xyz, rgb)), file_type="glb").geometry.values()
    corners = beads.vertices.reshape(count, -1, 3)
    assert np.allclose(corners.mean(axis=1), xyz, atol=1e-5)
    assert beads.is_watertight and np.allclose(beads.volume / count, np.abs(beads.volume) / count)
    assert set(beads.visual.material.baseColorTexture.convert("RGB").getdata()) >= {tuple(map(int, rgb[0]))}


def test_a_plain_cube(tmp_path: Path):
    assert reread(mesh_glb(cube()), tmp_path).num_faces == 12
