"""Mesh files to meshes, and meshes to coloured points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modeling_ulip2.geometry import read_mesh, sample_points
from modeling_ulip2.geometry.reading import MAX_BYTES, MAX_FACES
from modeling_ulip2.triplets.objects import rotate
from modeling_ulip2.triplets.schema import Packing

from .base import ObjectError, Row, RowStage, object_seed


class ReadMesh(RowStage):
    """`path` -> `mesh`, turned by the row's `rotation` if it has one, and `warnings`.

    Files outside the folder are refused. With `strict`, so is a mesh that lacks a texture; otherwise it is shown in
    its plain colours, and `warnings` says so.
    """

    def __init__(
        self, folder: str, max_faces: int = MAX_FACES, max_bytes: int = MAX_BYTES, strict: bool = False
    ) -> None:
        self.folder = Path(folder).resolve()
        self.limits = {"max_faces": max_faces, "max_bytes": max_bytes, "strict": strict}

    def process(self, row: Row) -> Row:
        path = (self.folder / row["path"].replace("\\", "/")).resolve()
        if not path.is_relative_to(self.folder):
            raise ObjectError("outside_folder", f"{row['path']!r} leads out of the folder of meshes")
        mesh = read_mesh(path, **self.limits)
        if row["rotation"]:
            try:
                mesh = rotate(mesh, row["rotation"])
            except ValueError as error:
                raise ObjectError("bad_rotation", str(error)) from None
        return {"mesh": mesh, "warnings": mesh.warnings}


class SamplePoints(RowStage):
    """`mesh` -> `xyz` (N, 3) float16 and `rgb` (N, 3) uint8, uniform over the surface, seeded by the object.

    `packing` is how the coordinates were changed, if at all, to fit into half precision.
    """

    def __init__(self, num_points: int, seed: int) -> None:
        self.num_points, self.seed = num_points, seed

    def process(self, row: Row) -> Row:
        xyz, rgb = sample_points(row["mesh"], self.num_points, object_seed(self.seed, row["id"]))
        packing = Packing.of(xyz)
        return {"xyz": packing(xyz).astype(np.float16), "rgb": rgb, "packing": packing}
