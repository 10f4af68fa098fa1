"""Robustness curves: how much accuracy is left when the clouds get worse."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from modeling_ulip2.data.schema import STORED_UP_AXIS
from modeling_ulip2.embedding.encoding import in_batches
from modeling_ulip2.embedding.loop import embed_each
from modeling_ulip2.embedding.reading import Reading
from modeling_ulip2.evaluation.metrics.controls import bootstrap_interval
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult
from modeling_ulip2.evaluation.robustness.corruptions import CORRUPTIONS, CorruptedClouds, shape_rng
from modeling_ulip2.geometry import Mesh, Renderer, camera_ring, read_mesh, sample_points
from modeling_ulip2.geometry.depth import visible_points
from modeling_ulip2.geometry.sandbox import path_within
from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor

# Clouds of what one or several depth cameras see; the whole surface stands for "all".
PARTIAL_VIEWS, VIEW_COUNTS = "views", (6, 4, 3, 2, 1)
VIEWS_TITLE, VIEWS_AXIS = "Seen from few sides", "depth views"
CURVES = (*CORRUPTIONS, PARTIAL_VIEWS)
# Side of the depth pictures; an object covers about a third of them, 17,000 pixels.
DEPTH_SIZE = 224

# point_values (B, N, C) -> logits or cosines (B, classes)
Classify = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Measured:
    """Accuracy at one level of one curve, with a bootstrap interval over shapes; fractions."""

    curve: str
    level: float
    accuracy: float
    class_average: float
    interval: tuple[float, float]
    shapes: int


class MeshClouds(Sequence):
    """Clouds sampled anew from mesh files, of any number of points, with the ids of other rows.

    Args:
        rows: mappings with `id`, the path of the mesh in one of the `folders`.
        num_points: points of a cloud.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], folders: Sequence[str | Path], num_points: int, seed: int = 0
    ):
        self.rows, self.folders, self.num_points, self.seed = rows, folders, num_points, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        name = self.rows[index]["id"]
        xyz, rgb = sample_points(_read(self.folders, name), self.num_points, self.seed)
        return {"id": name, "xyz": xyz, "rgb": rgb}


class PartialViews(Sequence):
    """What depth cameras around a mesh see of it: pictures of its depth, back-projected.

    The cameras stand on a ring as in the triplets (15 degrees above the horizon), evenly apart, from a random azimuth.
    Each point has the color of the nearest of 10,000 points of the surface, so that light plays no part.

    Args:
        rows: mappings with `id`, the path of the mesh in one of the `folders`.
        views: cameras.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], folders: Sequence[str | Path], views: int, seed: int = 0):
        self.rows, self.folders, self.views, self.seed = rows, folders, views, seed
        self.renderer = Renderer(size=DEPTH_SIZE, supersampling=1)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        name = self.rows[index]["id"]
        mesh = _read(self.folders, name)
        azimuth = 360 * shape_rng(self.seed, PARTIAL_VIEWS, name).random()
        xyz = np.concatenate(visible_points(mesh, camera_ring(self.views, azimuth=azimuth), self.renderer))  # (P, 3)
        if len(xyz) == 0:
            raise ValueError(f"{name}: no camera sees anything of this mesh")
        surface, colors = sample_points(mesh, 10_000, self.seed)
        return {"id": name, "xyz": xyz, "rgb": colors[cKDTree(surface).query(xyz)[1]]}


def mesh_path(folders: Sequence[str | Path], name: str) -> Path:
    """The mesh called `name` in the first of the folders that has it.

    Raises:
        FileNotFoundError: none has it.
        MeshError: the name leads out of a folder.
    """
    for folder in map(Path, folders):
        path = path_within(folder, name)
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no mesh {name} in {', '.join(map(str, folders))}: pass the folders that the dataset was built from"
    )


def _read(folders: Sequence[str | Path], name: str) -> Mesh:
    # as when the triplets were built: where a picture is missing, the material's plain color stands in
    path = mesh_path(folders, name)
    return read_mesh(path, next(folder for folder in folders if path.is_relative_to(folder)), strict=False)


def levels_of(curve: str, stored_points: int, meshes: bool, colored: bool = True) -> tuple[float, ...]:
    """The levels of a curve that the data allow: more points than are stored, and views, take meshes."""
    if curve == PARTIAL_VIEWS:
        return VIEW_COUNTS if meshes else ()
    if curve == "points":
        return tuple(level for level in CORRUPTIONS[curve].levels if meshes or level <= stored_points)
    if curve == "color" and not colored:
        return ()
    return CORRUPTIONS[curve].levels


def clouds_of(
    curve: str,
    level: float,
    rows: Sequence[Mapping[str, Any]],
    stored_points: int,
    meshes: Sequence[str | Path],
    seed: int,
) -> Sequence[Mapping[str, Any]]:
    """The clouds of one level. Those of more points than are stored are sampled from the meshes."""
    if curve == PARTIAL_VIEWS:
        return PartialViews(rows, meshes, int(level), seed)
    if curve != "points":
        return CorruptedClouds(rows, curve, level, seed)
    if level > stored_points:
        rows = MeshClouds(rows, meshes, int(level), seed)
    return CorruptedClouds(rows, curve, int(level), seed)


def extractor_of(curve: str, level: float, extractor: Ulip2FeatureExtractor) -> Ulip2FeatureExtractor:
    """The model's feature extractor; where the number of points is what varies, it passes all of them on."""
    if curve != "points":
        return extractor
    other = copy.deepcopy(extractor)
    other.num_points = int(level)
    return other


@torch.no_grad()
def measure(
    classify: Mapping[str, Classify],
    extractor: Ulip2FeatureExtractor,
    clouds: Sequence[Mapping[str, Any]],
    labels: Tensor,
    class_names: Sequence[str],
    batch_size: int = 16,
    device: torch.device | str = "cpu",
    progress: str | None = None,
) -> dict[str, ZeroShotResult]:
    """Measures several models on the same clouds, each of which is made once.

    Args:
        classify: models by name; all read the `point_values` of `extractor`.
        labels: (len(clouds),) classes.
        progress: what the bar says; None: no bar.

    Raises:
        MeshError, ValueError, OSError: a cloud cannot be used.
    """
    records = embed_each(
        clouds,
        Reading(extractor, up_axis=STORED_UP_AXIS),
        lambda batch: in_batches(
            batch, device, lambda values: torch.stack([scores(values).float() for scores in classify.values()], dim=1)
        ),  # (b, models, classes)
        batch_size=batch_size,
        progress=progress or False,
    )
    logits = torch.stack([record.vector() for record in records])  # (N, models, classes)
    return {
        name: ZeroShotResult.from_logits(logits[:, place], labels, class_names, topk=(1,))
        for place, name in enumerate(classify)
    }


def summarize(curve: str, level: float, result: ZeroShotResult, seed: int = 0) -> Measured:
    """The figures of one level."""
    correct = result.correct(1).numpy().astype(float)  # (N,)
    interval = bootstrap_interval(len(correct), lambda rows: float(correct[rows].mean()), seed=seed)
    metrics = result.metrics
    return Measured(curve, level, metrics["top1"], metrics["top1_class_average"], interval, len(correct))
