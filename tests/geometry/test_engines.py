"""Two rasterizers that share nothing but the scene must draw the same pictures."""

import subprocess
import sys

import numpy as np
import pytest

from modeling_ulip2.geometry import Camera, Material, Mesh, Renderer, camera_ring
from modeling_ulip2.geometry.cameras import PUBLISHED_RING
from modeling_ulip2.geometry.raster_egl import EglRasterizer, EglUnavailableError

from .builders import CUBE_FACES, CUBE_VERTICES, quad, sphere

SIZE = 96


@pytest.fixture(scope="module")
def engines():
    try:
        egl = Renderer("egl", size=SIZE)
    except EglUnavailableError as error:
        pytest.skip(f"no EGL here: {error}")
    return Renderer("numba", size=SIZE), egl


def knot() -> Mesh:
    """A smooth torus with vertex colors, inside a spiky flat shell with face colors."""
    rng = np.random.default_rng(0)
    around, across = np.meshgrid(
        np.linspace(0, 2 * np.pi, 40, False), np.linspace(0, 2 * np.pi, 20, False), indexing="ij"
    )
    radius = 1.0 + 0.35 * np.cos(across)
    points = np.stack([radius * np.cos(around), 0.35 * np.sin(across), radius * np.sin(around)], -1).reshape(-1, 3)
    normals = np.stack([np.cos(across) * np.cos(around), np.sin(across), np.cos(across) * np.sin(around)], -1)
    i, j = np.meshgrid(np.arange(40), np.arange(20), indexing="ij")
    a, b = (i * 20 + j).ravel(), ((i + 1) % 40 * 20 + j).ravel()
    c, d = ((i + 1) % 40 * 20 + (j + 1) % 20).ravel(), (i * 20 + (j + 1) % 20).ravel()
    faces = np.concatenate([np.stack([a, c, b], 1), np.stack([a, d, c], 1)])
    colors = rng.random((len(points), 3))
    return Mesh(points, faces, normals=normals.reshape(-1, 3), vertex_colors=colors)


def textured(alpha: int = 255, mode: str = "OPAQUE", wrap: str = "repeat") -> Mesh:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (6, 6, 4), dtype=np.uint8)
    texture = coarse.repeat(16, axis=0).repeat(16, axis=1)
    texture[..., 3] = np.where(texture[..., 3] > 128, 255, alpha)
    ball = sphere(24)
    uv = np.column_stack([np.arctan2(ball.vertices[:, 0], ball.vertices[:, 2]), ball.vertices[:, 1]])
    material = Material(
        texture=texture, wrap=(wrap, wrap), alpha_mode=mode, base_color=np.array([0.9, 1, 0.8, 1], np.float32)
    )
    return Mesh(ball.vertices, ball.faces, [material], normals=ball.normals, uv=uv)


def glass_box() -> Mesh:
    ball = sphere(10, smooth=False)
    vertices = np.concatenate([ball.vertices * 0.6, CUBE_VERTICES])
    faces = np.concatenate([ball.faces, CUBE_FACES + len(ball.vertices)])
    glass = Material(base_color=np.array([0.2, 0.5, 0.9, 0.4], np.float32), alpha_mode="BLEND")
    index = np.repeat([0, 1], [len(ball.faces), 12])
    return Mesh(vertices, faces, [Material(base_color=np.array([0.8, 0.2, 0.1, 1], np.float32)), glass], index)


def lamp() -> Mesh:
    """A ball whose texture is its emission, behind a pane that shines, too."""
    ball = textured()
    material = Material(emission_texture=ball.materials[0].texture, emission=np.array([0.6, 2.0, 0.3], np.float32))
    pane = Material(
        base_color=np.array([0.9, 0.8, 0.1, 0.3], np.float32),
        alpha_mode="BLEND",
        emission=np.array([0.1, 0, 0.2], np.float32),
    )
    vertices = np.concatenate([ball.vertices, CUBE_VERTICES * [0.2, 1.5, 1.2]])
    faces = np.concatenate([ball.faces, CUBE_FACES + len(ball.vertices)])
    uv = np.concatenate([ball.uv, np.zeros((8, 2))])
    return Mesh(vertices, faces, [material, pane], np.repeat([0, 1], [len(ball.faces), 12]), uv=uv)


SCENES = {
    "lamp": lamp,
    "smooth and vertex colors": knot,
    "flat": lambda: Mesh(
        CUBE_VERTICES * [1, 2, 0.5], CUBE_FACES, face_colors=np.random.default_rng(2).random((12, 3))
    ),
    "texture": textured,
    "mirrored texture": lambda: textured(wrap="mirror"),
    "clamped texture": lambda: textured(wrap="clamp"),
    "alpha mask": lambda: textured(0, "MASK"),
    "blended texture": lambda: textured(90, "BLEND"),
    "glass": glass_box,
}


@pytest.mark.parametrize("name", SCENES)
def test_pictures_agree(engines, name):
    mesh = SCENES[name]()
    cameras = [*camera_ring(5), Camera(10, elevation=70, fov=60), Camera(100, elevation=-30, distance=6.0)]
    cameras += [*camera_ring(2, **PUBLISHED_RING), Camera(30, distance=8.0, shift=(0.5, -0.2))]
    ours, theirs = (engine.render(mesh, cameras) for engine in engines)
    covered = (ours.alpha > 0) | (theirs.alpha > 0)
    both = (ours.alpha > 127) & (theirs.alpha > 127)
    either = (ours.alpha > 127) | (theirs.alpha > 127)
    assert both.sum() / either.sum() > 0.999
    assert np.abs(ours.alpha.astype(int) - theirs.alpha)[covered].mean() < 0.5
    assert np.abs(ours.rgb.astype(int) - theirs.rgb)[covered].mean() < 0.5
    reach = np.linalg.norm(np.ptp(mesh.vertices, axis=0))
    assert np.quantile(np.abs(ours.depth - theirs.depth)[both], 0.99) < 0.01 * reach


def test_culling_agrees(engines):
    square = quad(Material(double_sided=False))
    for engine in engines:
        engine.cull_back_faces = True
        alpha = engine.render(square, [Camera(0, 0), Camera(180, 0)]).alpha[:, SIZE // 2, SIZE // 2]
        engine.cull_back_faces = False
        assert alpha.tolist() == [255, 0], engine.engine


def test_egl_frees_what_it_draws(engines):
    """Many meshes in one process: a leak of textures or buffers would end a long job."""
    _, egl = engines
    for _ in range(20):
        egl.render(textured(), camera_ring(1))


def test_auto_prefers_numba_to_a_software_driver(engines):
    rasterizer = EglRasterizer(16)
    expected = "numba" if rasterizer.is_software else "egl"
    rasterizer.release()
    assert Renderer("auto", size=16).engine == expected


def test_a_missing_driver_is_said_and_auto_falls_back(monkeypatch):
    import moderngl

    def refuse(**settings):
        raise Exception("libEGL.so not loaded")

    monkeypatch.setattr(moderngl, "create_context", refuse)
    with pytest.raises(EglUnavailableError, match="libEGL.so not loaded.*engine='numba'"):
        Renderer("egl")
    assert Renderer("auto").engine == "numba"
    monkeypatch.setitem(__import__("sys").modules, "moderngl", None)
    with pytest.raises(EglUnavailableError, match=r"pip install \"modeling-ulip2\[mesh\]"):
        Renderer("egl")
    assert Renderer("auto").engine == "numba"


def test_a_forked_process_is_told_to_spawn(engines, monkeypatch):
    import os

    _, egl = engines
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="spawn"):
        egl.render(quad(), camera_ring(1))


def test_triton_may_come_after_a_look_for_egl(engines):
    """Mesa's LLVM and Triton's in one process; a builder looks for a GPU first and loads its tower later."""
    pytest.importorskip("triton")
    program = "from modeling_ulip2.geometry import Renderer; Renderer('auto', size=8); import triton"
    assert subprocess.run([sys.executable, "-c", program], timeout=300).returncode == 0
