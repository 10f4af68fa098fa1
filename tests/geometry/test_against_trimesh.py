"""An independent reader and writer as the judge, on files that it handles well."""

import numpy as np
import pytest

from modeling_ulip2.geometry import Mesh, read_mesh

trimesh = pytest.importorskip("trimesh")


def scene() -> "trimesh.Scene":
    """A smooth sphere beside a mirrored, turned and stretched cone."""
    cone = trimesh.creation.cone(radius=0.5, height=2.0, sections=12)
    ball = trimesh.creation.icosphere(subdivisions=2)
    assert ball.vertex_normals.shape == ball.vertices.shape  # written, once it has been computed
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3], [0.1, 0.2, 0.3])
    scene = trimesh.Scene(ball)
    scene.add_geometry(cone, transform=turn @ np.diag([-1.0, 2.0, 0.5, 1.0]))
    return scene


def sorted_triangles(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F, 9) corners of each triangle, begun at its smallest corner, so that the winding stays, in a fixed order."""
    triangles = np.round(vertices, 4)[faces] + 0.0
    first = [np.lexsort(corners.T[::-1])[0] for corners in triangles]
    turned = np.stack([np.roll(c, -f, axis=0) for c, f in zip(triangles, first, strict=True)]).reshape(-1, 9)
    return turned[np.lexsort(turned.T)]


def same(mesh: Mesh, expected: "trimesh.Trimesh") -> None:
    assert mesh.num_faces == len(expected.faces)
    ours = sorted_triangles(mesh.vertices, mesh.faces)
    theirs = sorted_triangles(np.asarray(expected.vertices), np.asarray(expected.faces))
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply", "stl", "off"])
def test_what_trimesh_writes_is_read_as_trimesh_means_it(tmp_path, suffix):
    whole = scene()
    path = tmp_path / f"a.{suffix}"
    (whole if suffix == "glb" else whole.to_mesh()).export(path)
    same(read_mesh(path), whole.to_mesh())


@pytest.mark.parametrize("suffix", ["glb", "ply"])
def test_vertex_colors_that_trimesh_writes(tmp_path, suffix):
    ball = trimesh.creation.icosphere(subdivisions=1)
    ball.visual.vertex_colors = np.column_stack(
        [np.random.default_rng(0).integers(0, 256, (len(ball.vertices), 3)), np.full(len(ball.vertices), 255)]
    ).astype(np.uint8)
    ball.export(tmp_path / f"a.{suffix}")
    mesh = read_mesh(tmp_path / f"a.{suffix}")
    order = [np.abs(mesh.vertices - vertex).sum(axis=1).argmin() for vertex in ball.vertices]
    stored = ball.visual.vertex_colors[:, :3] / 255.0
    if suffix == "glb":  # bytes of COLOR_0 are linear by glTF's definition, of PLY sRGB by custom
        np.testing.assert_allclose(mesh.vertex_colors[order, :3], stored, atol=1e-6)
    else:
        from modeling_ulip2.geometry.colors import srgb_to_linear

        np.testing.assert_allclose(mesh.vertex_colors[order, :3], srgb_to_linear(stored), atol=1e-6)
