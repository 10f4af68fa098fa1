"""Meshes written by the tests, good and bad."""

from __future__ import annotations

from pathlib import Path

BOX_CORNERS = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
BOX_FACES = ["1 2 4 3", "5 7 8 6", "1 5 6 2", "3 4 8 7", "1 3 7 5", "2 6 8 4"]


def write_box(path: Path, size: tuple[float, float, float] = (1, 1, 1), color: tuple[float, float, float] = (1, 0, 0)):
    """An OBJ box of the given half sizes, with its color in an MTL file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    vertices = [f"v {x * size[0]} {y * size[1]} {z * size[2]}" for x, y, z in BOX_CORNERS]
    faces = [f"f {face}" for face in BOX_FACES]
    path.write_text("\n".join([f"mtllib {path.stem}.mtl", "usemtl paint", *vertices, *faces]) + "\n")
    path.with_suffix(".mtl").write_text(f"newmtl paint\nKd {color[0]} {color[1]} {color[2]}\n")
    return path


def write_bad_meshes(folder: Path) -> dict[str, str]:
    """Files that cannot become triplets, by name, with the reason that `errors.parquet` should give."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nothing.obj").write_text("")
    (folder / "no_faces.obj").write_text("v 0 0 0\nv 1 0 0\n")
    (folder / "flat.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    (folder / "nan.obj").write_text("v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n")
    (folder / "photo.glb").write_bytes(b"\x89PNG and so on")
    return {
        "nothing.obj": "empty",
        "no_faces.obj": "empty",
        "flat.obj": "zero_area",
        "nan.obj": "non_finite",
        "photo.glb": "corrupt",
    }


def build_arguments(meshes: Path, output: Path, tower: Path, *more: str) -> list[str]:
    """A small build of `build_triplets.py` in the test's own process; `more` wins."""
    small = ["--num-points", "64", "--views", "3", "--size", "32", "--shard-size", "4", "--dtype", "float32"]
    folders = ["--meshes", str(meshes), "--output", str(output), "--tower", str(tower)]
    return [*folders, *small, "--vocabulary", "modelnet40", "--num-proc", "0", *more]
