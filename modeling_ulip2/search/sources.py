"""Where the shapes of an index come from: a triplets dataset, or a bare folder of meshes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from PIL import Image

from modeling_ulip2.evaluation.split import PORTRAIT_AZIMUTH
from modeling_ulip2.geometry import Camera, Renderer, read_mesh, sample_points
from modeling_ulip2.training.data import decode_row
from modeling_ulip2.triplets.images import draw_cloud
from modeling_ulip2.triplets.objects import list_objects, rotate
from modeling_ulip2.triplets.schema import pack_xyz

from .schema import TEXTS

# Of the picture of a mesh that was not rendered before; ours.
PICTURE_SIZE, PICTURE_BACKGROUND = 224, (255, 255, 255)

Row = dict[str, Any]


class Source(Protocol):
    """N shapes, read one by one.

    Attributes:
        ids: unique.
        num_points: of every cloud.
    """

    ids: list[str]
    num_points: int

    def read(self, position: int) -> Row:
        """The columns of `schema.index_features` without the embedding.

        Raises:
            ValueError: this shape cannot be used (`MeshError` with the reason); the others can.
        """
        ...


class TripletSource:
    """The rows of a triplets dataset.

    Args:
        triplets: rows of the `triplets` config.
        labels: category by id.
    """

    def __init__(self, triplets: Dataset, labels: Mapping[str, str] | None = None) -> None:
        columns = [*(name for name in TEXTS if name != "category"), "xyz", "rgb", "views", "azimuths"]
        self.ids = list(triplets["id"])
        self.num_points: int = triplets.features["xyz"].shape[0]
        self._rows = triplets.select_columns(columns).with_format("arrow")
        self._labels = labels or {}

    def read(self, position: int) -> Row:
        row = decode_row(self._rows[position])
        turns = np.abs((np.asarray(row["azimuths"]) - PORTRAIT_AZIMUTH + 180) % 360 - 180)  # (V,) degrees
        row["category"] = self._labels.get(row["id"], "")
        return {
            **{name: row[name] or "" for name in TEXTS},
            "image": row["views"][int(turns.argmin())] if len(turns) else _draw(row["xyz"], row["rgb"]),
            "xyz": row["xyz"],
            "rgb": row["rgb"],
        }


def _draw(xyz: np.ndarray, rgb: np.ndarray) -> dict[str, Any]:
    """The picture of a shape that a release gives without views: its points (N, 3)."""
    return _encoded(draw_cloud(np.asarray(xyz, np.float32), rgb, PICTURE_SIZE))


def _encoded(picture: np.ndarray) -> dict[str, Any]:
    """A picture (H, W, 3) uint8 as `datasets.Image` stores it."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="WEBP", quality=90)
    return {"bytes": buffer.getvalue(), "path": None}


class MeshSource:
    """The meshes of a folder, with their names, creators and licences where `objects.csv` tells them.

    Args:
        folder: see `list_objects`.
        num_points: drawn from each surface, by one seed.
        labels: category by id, before that of `objects.csv`.

    Raises:
        FolderError: no such folder, or no mesh in it.
    """

    def __init__(self, folder: str | Path, num_points: int, labels: Mapping[str, str] | None = None) -> None:
        self._folder = Path(folder).expanduser().resolve()
        self._objects = list_objects(self._folder)
        self._labels = labels or {}
        self._renderer: Renderer | None = None
        self.ids = [row["id"] for row in self._objects]
        self.num_points = num_points

    def read(self, position: int) -> Row:
        facts = self._objects[position]
        mesh = read_mesh(self._folder / facts["path"].replace("\\", "/"), self._folder, strict=False)
        if facts["rotation"]:
            mesh = rotate(mesh, facts["rotation"])
        xyz, rgb = sample_points(mesh, self.num_points)
        self._renderer = self._renderer or Renderer("auto", PICTURE_SIZE, background=PICTURE_BACKGROUND)
        picture = self._renderer.render(mesh, [Camera(PORTRAIT_AZIMUTH)]).rgb[0]  # (H, W, 3)
        facts = facts | {"category": self._labels.get(facts["id"], facts["category"])}
        return {
            **{name: facts[name] for name in TEXTS},
            "image": _encoded(picture),
            "xyz": pack_xyz(xyz),
            "rgb": rgb,
        }


def open_source(name: str, num_points: int, labels: Mapping[str, str] | None = None) -> Source:
    """A triplets dataset by folder or hub name, or a folder of meshes, of which `num_points` points each are drawn."""
    from modeling_ulip2.training.data import read_triplets

    folder = Path(name).expanduser()
    if folder.is_dir() and not any(folder.glob("**/*.parquet")):
        return MeshSource(folder, num_points, labels)
    return TripletSource(read_triplets(name), labels)
