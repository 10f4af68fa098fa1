"""Mesh files to meshes, and meshes to colored points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modeling_ulip2.data.objects import rotate
from modeling_ulip2.data.schema import Packing, Row
from modeling_ulip2.geometry import MeshError, read_mesh, sample_points
from modeling_ulip2.geometry.axes import AUTO_AXIS, check_up_axis, resolve_up_axis, turn_mesh
from modeling_ulip2.geometry.reading import MAX_BYTES, MAX_FACES
from modeling_ulip2.geometry.sandbox import path_within

from .base import ObjectError, RowStage, object_seed


class ReadMesh(RowStage):
    """`path` -> `mesh`, y up, and `warnings`.

    The row's `rotation`, if it has one, stands it upright; otherwise `up_axis` says what points up in the file. "auto"
    is what its format fixes (glTF: y), and leaves files of other formats as they are.

    Files outside the folder are refused; a mesh may name any file below it, such as its neighbors' textures. With
    `strict`, a mesh that lacks a texture is refused, too; otherwise it is shown in its plain colors, and `warnings`
    says so.
    """

    def __init__(
        self,
        folder: str,
        max_faces: int = MAX_FACES,
        max_bytes: int = MAX_BYTES,
        strict: bool = False,
        up_axis: str = AUTO_AXIS,
    ) -> None:
        self.folder, self.up_axis = Path(folder).resolve(), check_up_axis(up_axis, auto=True)
        self.limits: dict[str, Any] = {"max_faces": max_faces, "max_bytes": max_bytes, "strict": strict}

    def process(self, row: Row) -> Row:
        try:
            path = path_within(self.folder, row["path"])
        except MeshError as error:
            raise ObjectError("outside_folder", str(error)) from None
        mesh = read_mesh(path, self.folder, **self.limits)
        if row["rotation"]:
            try:
                mesh = rotate(mesh, row["rotation"])
            except ValueError as error:
                raise ObjectError("bad_rotation", str(error)) from None
        elif up := resolve_up_axis(path, self.up_axis):
            mesh = turn_mesh(mesh, up)
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
