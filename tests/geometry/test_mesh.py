import pickle

import numpy as np
import pytest

from modeling_ulip2.geometry import Mesh, MeshError

from .builders import CUBE_FACES, CUBE_VERTICES, cube


def error_of(*args, **kwargs) -> str:
    with pytest.raises(MeshError) as error:
        Mesh(*args, **kwargs)
    return error.value.reason


def test_unused_vertices_go_with_their_attributes():
    vertices = np.concatenate([[[np.nan] * 3], CUBE_VERTICES])
    colors = np.linspace(0, 1, 27).reshape(9, 3)
    mesh = Mesh(vertices, CUBE_FACES + 1, vertex_colors=colors, normals=vertices)
    np.testing.assert_array_equal(mesh.vertices, CUBE_VERTICES)
    np.testing.assert_allclose(mesh.vertex_colors[:, :3], colors[1:], atol=1e-7)
    assert mesh.faces.max() == 7 and mesh.faces.dtype == np.int32
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1.0, atol=1e-6)


def test_area_of_a_cube():
    assert cube().face_areas().sum() == pytest.approx(24.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_coordinates_that_no_renderer_can_use_are_refused(bad):
    vertices = CUBE_VERTICES.copy()
    vertices[3, 1] = bad
    assert error_of(vertices, CUBE_FACES) == "non_finite"


def test_structural_errors():
    assert error_of(CUBE_VERTICES, np.zeros((0, 3), int)) == "empty"
    assert error_of(np.zeros((0, 3)), CUBE_FACES) == "empty"
    assert error_of(CUBE_VERTICES, CUBE_FACES + 1) == "corrupt"
    assert error_of(CUBE_VERTICES, CUBE_FACES - 1) == "corrupt"
    assert error_of(np.ones((8, 3)), CUBE_FACES) == "zero_area"
    assert error_of(CUBE_VERTICES, CUBE_FACES, vertex_colors=np.full((8, 3), np.nan)) == "non_finite"


def test_broken_normals_mean_flat_shading():
    normals = CUBE_VERTICES.copy()
    normals[0] = np.nan
    normals[1] = 0.0
    mesh = Mesh(CUBE_VERTICES, CUBE_FACES, normals=normals)
    assert (mesh.normals[:2] == 0).all() and np.isfinite(mesh.normals).all()


def test_an_error_keeps_its_reason_and_path_across_processes():
    error = pickle.loads(pickle.dumps(MeshError("draco", "needs DracoPy", "a/b.glb")))
    assert (error.reason, str(error.path), str(error)) == ("draco", "a/b.glb", "a/b.glb: needs DracoPy")
    with pytest.raises(TypeError, match="unknown reason"):
        MeshError("typo", "message")  # type: ignore[arg-type]
