"""A few shapes of the collection as files, for people who have none at hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import trimesh
from gradio.utils import get_upload_folder

from modeling_ulip2.search.index import Match

from .engine import Engine
from .shared import title

COUNT = 4


def write_samples(engine: Engine) -> list[str]:
    """Paths of PLY files with the coloured points of shapes spread over the collection."""
    folder = Path(get_upload_folder()) / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.linspace(0, len(engine.index) - 1, num=min(COUNT, len(engine.index)), dtype=int)
    paths = []
    for hit in engine.hits([Match(int(row), 1.0) for row in rows]):
        cloud = engine.index.cloud(hit.row)
        path = folder / f"{re.sub(r'[^a-z0-9]+', '-', title(hit).lower()).strip('-') or 'shape'}-{hit.row}.ply"
        path.write_bytes(trimesh.PointCloud(cloud["xyz"], cloud["rgb"]).export(file_type="ply"))
        paths.append(str(path))
    return paths
