"""A few shapes of the collection as files, for people who have none at hand."""

from __future__ import annotations

import re
from dataclasses import dataclass

import trimesh
from PIL import Image

from .engine import Engine
from .gradio_internals import upload_folder
from .shared import title

COUNT = 4


@dataclass(frozen=True)
class Sample:
    """A PLY file with the colored points of a shape of the collection."""

    path: str
    title: str
    picture: Image.Image


def write_samples(engine: Engine) -> list[Sample]:
    """Shapes as different as the collection has them."""
    folder = upload_folder() / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for hit in engine.showcase(COUNT):
        cloud = engine.index.cloud(hit.row)
        path = folder / f"{re.sub(r'[^a-z0-9]+', '-', title(hit).lower()).strip('-') or 'shape'}-{hit.row}.ply"
        path.write_bytes(trimesh.PointCloud(cloud["xyz"], cloud["rgb"]).export(file_type="ply"))
        samples.append(Sample(str(path), title(hit), engine.picture(hit.row)))
    return samples
