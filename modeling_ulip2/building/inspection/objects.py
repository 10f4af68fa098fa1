"""One object's defects and what the statistics need of it, from its stored row."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from modeling_ulip2.data.images import open_view
from modeling_ulip2.data.reading import decode_row

COLUMNS = ["id", "name", "xyz", "rgb", "views", "captions", "caption_scores"]
# A pixel shows the object if a channel is this far from the background; lossy images ring by less.
CONTRAST = 16
BLANK_SHARE = 0.001  # of the pixels: a view that shows less is blank
BORDER_SHARE = 0.02  # of the border's pixels: a view that covers more is cut off
ONE_COLOR, GRAY = 2, 6  # steps of 255 by which the points of one color, and the channels of a gray, may differ
FLAT = 1e-3  # of the cloud's largest side
THUMBNAIL, THUMBNAIL_VIEWS = 8, 4  # side and number of the small pictures by which objects are compared


@dataclass
class Facts:
    """`problems` maps a defect to what was found; `scores` are NaN where a release has none.

    `thumbnails` is (views, side, side, 3) uint8, None if there are no views or one is unreadable.
    """

    id: str
    problems: dict[str, str] = field(default_factory=dict)
    captions: list[list[str]] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)
    views: int = 0
    thumbnails: np.ndarray | None = None


def inspect_file(path: Path, indices: list[int] | None, background: list[int] | None) -> list[Facts] | str:
    """Facts of a file's rows, all or those of `indices`; what is wrong with a file that cannot be read."""
    facts, wanted, start = [], None if indices is None else set(indices), 0
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if wanted is None or any(start <= index < start + size for index in wanted):
                    table = file.read_row_group(group, columns=COLUMNS)
                    for index in range(size):
                        if wanted is None or start + index in wanted:
                            facts.append(inspect_row(decode_row(table.slice(index, 1)), background))
                start += size
    except (OSError, ValueError, KeyError) as error:
        return str(error).splitlines()[0]
    return facts


def inspect_row(row: dict[str, Any], background: list[int] | None) -> Facts:
    scores = [[float(score) for score in own] for own in row["caption_scores"]]
    facts = Facts(row["id"], captions=row["captions"], scores=scores, views=len(row["views"]))
    if not any(row["captions"]):
        facts.problems["no captions"] = ""
    images: list[np.ndarray] = []
    try:
        images = [np.asarray(open_view(view)) for view in row["views"]]  # [V] (H, W, 3)
    except (OSError, ValueError) as error:
        facts.problems["unreadable view"] = str(error).splitlines()[0]
    if not facts.views:
        facts.problems["no views"] = ""
    elif images:
        facts.problems |= view_problems(images, background)
        step = max(len(images) // THUMBNAIL_VIEWS, 1)
        facts.thumbnails = np.stack([thumbnail(image) for image in images[::step][:THUMBNAIL_VIEWS]])
    facts.problems |= cloud_problems(row["xyz"].astype(np.float32), row["rgb"])
    return facts


def view_problems(images: list[np.ndarray], background: list[int] | None) -> dict[str, str]:
    """Blank views and views whose object reaches the border. Without `background` it is the border's median color."""
    blank, cut = [], []
    for number, image in enumerate(images):
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).astype(int)  # (pixels, 3)
        ground = np.median(border, axis=0) if background is None else np.array(background)
        if (np.abs(image - ground).max(axis=-1) > CONTRAST).mean() < BLANK_SHARE:
            blank.append(number)
        elif (np.abs(border - ground).max(axis=-1) > CONTRAST).mean() > BORDER_SHARE:
            cut.append(number)
    found = {}
    for what, views in (("blank view", blank), ("cut-off view", cut)):
        if views:
            found[what] = f"{len(views)} of {len(images)} views: {', '.join(map(str, views))}"
    return found


def cloud_problems(xyz: np.ndarray, rgb: np.ndarray) -> dict[str, str]:
    """Clouds (N, 3) that are flat or not finite, or whose points all have one gray, which is a default's color."""
    if not np.isfinite(xyz).all():
        return {"not finite": "coordinates are NaN or infinite"}
    found = {}
    sides = np.ptp(xyz, axis=0)  # (3,)
    if sides.min() <= FLAT * sides.max():
        found["flat cloud"] = f"sides {', '.join(f'{side:.3g}' for side in sides)}"
    if len(rgb) and np.ptp(rgb.astype(int), axis=0).max() <= ONE_COLOR:
        color = rgb[0].astype(int)
        if np.ptp(color) <= GRAY:
            found["colorless cloud"] = f"every point is {tuple(color.tolist())}"
    return found


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(side, side, 3) uint8."""
    return np.asarray(Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
