"""Milliseconds per view of both rendering engines, and of sampling, on meshes of three sizes.

    python tests/benchmarks/bench_render.py [--views 12] [--size 224] [--repeats 3]

Times are CPU time of this process (so that a busy machine does not change them) except for EGL on a GPU, whose work
happens elsewhere; each is the best of the repeats, in one run, engines in turn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from modeling_ulip2.geometry import Material, Mesh, Renderer, camera_ring, sample_points
from modeling_ulip2.geometry.raster_egl import EglRasterizer, EglUnavailableError


def bumpy_sphere(rings: int, textured: bool) -> Mesh:
    """4 * rings^2 smooth triangles with a 512 x 512 texture, or flat ones with vertex colors."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings + 1), indexing="ij")
    radius = 1.0 + 0.1 * np.sin(5 * theta) * np.cos(7 * phi)
    unit = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], axis=-1)
    points = (radius[..., None] * unit).reshape(-1, 3)
    corner = (np.arange(rings)[:, None] * (2 * rings + 1) + np.arange(2 * rings)).reshape(-1)
    below = corner + 2 * rings + 1
    faces = np.concatenate([np.stack([corner, below, below + 1], 1), np.stack([corner, below + 1, corner + 1], 1)])
    if not textured:
        return Mesh(points, faces, vertex_colors=np.abs(points) / 1.2)
    image = np.random.default_rng(0).integers(0, 256, (512, 512, 4), dtype=np.uint8)
    uv = np.stack([phi / (2 * np.pi), theta / np.pi], axis=-1).reshape(-1, 2)
    return Mesh(points, faces, [Material(texture=image)], normals=unit.reshape(-1, 3), uv=uv)


def best(function: Callable[[], object], repeats: int, clock: Callable[[], float] = time.process_time) -> float:
    """Milliseconds."""
    times = []
    for _ in range(repeats):
        start = clock()
        function()
        times.append(1e3 * (clock() - start))
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    ring = camera_ring(arguments.views)

    start = time.perf_counter()
    renderers = {"numba 2x": Renderer(size=arguments.size), "numba 1x": Renderer(size=arguments.size, supersampling=1)}
    for renderer in renderers.values():
        renderer.render(bumpy_sphere(4, True), ring[:1])
    print(f"numba ready after {time.perf_counter() - start:.1f} s (longer on the first run: machine code is kept)")
    clock = time.process_time
    try:
        rasterizer = EglRasterizer(16)
        device = rasterizer.device
        clock = clock if rasterizer.is_software else time.perf_counter
        rasterizer.release()
        renderers["egl 2x"] = Renderer("egl", size=arguments.size)
        print(f"EGL draws on {device}")
    except EglUnavailableError as error:
        print(f"no EGL: {error}")

    columns = [*renderers, "points 10k"]
    print(
        f"{'triangles':>10} {'surface':>10} "
        + " ".join(f"{name:>12}" for name in columns)
        + "   ms per view; ms per cloud"
    )
    for rings in (32, 61, 174):
        for textured in (False, True):
            mesh = bumpy_sphere(rings, textured)
            cells = []
            for name, renderer in renderers.items():
                took = best(
                    lambda renderer=renderer, mesh=mesh: renderer.render(mesh, ring),
                    arguments.repeats,
                    clock if name.startswith("egl") else time.process_time,
                )
                cells.append(took / arguments.views)
            cells.append(best(lambda mesh=mesh: sample_points(mesh, 10_000, 0), arguments.repeats))
            ratios = " ".join(f"{cell:12.1f}" for cell in cells)
            print(f"{mesh.num_faces:>10} {'texture' if textured else 'flat':>10} {ratios}")


if __name__ == "__main__":
    main()
