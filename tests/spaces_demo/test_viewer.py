from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import trimesh
from rooms.viewer import MANY, cloud_glb, mesh_glb

from modeling_ulip2.geometry import Material, Mesh, read_mesh, sample_points
from modeling_ulip2.geometry.colors import linear_to_srgb, srgb_to_linear
from modeling_ulip2.geometry.light import pane_color
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
def test_colors_of_vertices_and_faces(colored: str, tmp_path: Path):
    count = 8 if colored == "vertex_colors" else 12
    colors = np.tile(np.float32([0, 1, 0, 1]), (count, 1))
    shown = reread(mesh_glb(Mesh(CUBE_VERTICES, CUBE_FACES, **{colored: colors})), tmp_path)
    assert (sample_points(shown, 50)[1] == [0, 255, 0]).all()


def seen_in_browser(mesh: Mesh, folder: Path) -> tuple[Material, np.ndarray]:
    """The material that a browser gets, and the mean color of it, linear, that it would show without light."""
    (folder / "shape.glb").write_bytes(mesh_glb(mesh))
    (shown,) = trimesh.load(folder / "shape.glb").geometry.values()
    material = shown.visual.material
    color = np.asarray(material.baseColorFactor)[:3] / 255
    if material.baseColorTexture is not None:
        color = color * srgb_to_linear(np.asarray(material.baseColorTexture.convert("RGB")) / 255).mean(axis=(0, 1))
    if "color" in shown.visual.vertex_attributes:
        color = color * shown.visual.vertex_attributes["color"][:, :3].mean(axis=0) / 255
    return material, color


@pytest.mark.parametrize("paint", ["factor", "texture", "vertex colors"])
def test_glass_has_the_color_of_the_pictures(paint: str, tmp_path: Path):
    texture = np.tile(np.uint8([0, 0, 255, 255]), (4, 4, 1))
    own = np.float32([0, 0, 1] if paint == "factor" else [1, 1, 1])
    material = Material(base_color=np.float32([*own, 0.4]), alpha_mode="BLEND")
    material.texture = texture if paint == "texture" else None
    mesh = quad(material)
    if paint == "vertex colors":
        mesh.vertex_colors = np.tile(np.float32([0, 0, 1, 1]), (4, 1))
    shown, color = seen_in_browser(mesh, tmp_path)
    np.testing.assert_allclose(color, pane_color(np.float32([0, 0, 1]), 0.4), atol=0.01)
    assert shown.alphaMode == "BLEND"
    np.testing.assert_allclose(linear_to_srgb(color) * 255, sample_points(mesh, 10)[1].mean(axis=0), atol=2)


@pytest.mark.parametrize("colored", [False, True])
def test_lamps_shine(colored: bool, tmp_path: Path):
    glow = np.tile(np.uint8([255, 0, 255, 255]), (4, 4, 1))
    material = Material(base_color=np.float32([0, 0, 0, 1]), emission=np.float32([4, 1, 0]), emission_texture=glow)
    mesh = quad(material)
    if colored:
        mesh.vertex_colors = np.ones((4, 4), np.float32)
    shown, _ = seen_in_browser(mesh, tmp_path)
    np.testing.assert_allclose(shown.emissiveFactor, [1, 0.25, 0])  # as bright as the format goes, the same hue
    assert shown.emissiveTexture.convert("RGB").getpixel((1, 1)) == (255, 0, 255)
    assert seen_in_browser(quad(Material()), tmp_path)[0].emissiveFactor is None


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
