"""Pictures of shapes with what was said or found, as PNG: a sheet of retrievals, a sheet of captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from modeling_ulip2.data.contact_sheet import MUTED, Picture, Tile, Words, contact_sheet, in_rows
from modeling_ulip2.utils.files import whole_path

PANEL_SIDE = 460  # pixels


@dataclass(frozen=True)
class Hit:
    """One shape of a row: `image` (H, W, 3) uint8 or PIL, `correct` None where nobody knows."""

    image: Picture
    name: str
    score: float
    correct: bool | None = None


@dataclass(frozen=True)
class Described:
    """A shape of a description sheet: a view, what a model says, and what was said about it."""

    image: Picture
    caption: str
    reference: str


def retrieval_sheet(path: str | Path, rows: Mapping[str, Sequence[Hit]], title: str = "") -> Path:
    """A row for each query, its best shapes from left to right with cosine and, where known, a tick or a cross."""
    if not rows or not all(rows.values()):
        raise ValueError("a retrieval sheet needs at least one query, and a shape for each")
    tiles = [
        [Tile([hit.image], [Words(hit.name), Words(f"{hit.score:.3f}", MUTED)], hit.correct) for hit in hits]
        for hits in rows.values()
    ]
    return _save(contact_sheet(tiles, list(rows), title), path)


def description_sheet(path: str | Path, shapes: Sequence[Described], title: str = "", columns: int = 5) -> Path:
    """A grid of shapes; under each the model's caption and, muted, a reference."""
    if not shapes:
        raise ValueError("a description sheet needs at least one shape")
    tiles = [
        Tile([shape.image], [Words(shape.caption or "–", lines=2), Words(shape.reference, MUTED, 2)])
        for shape in shapes
    ]
    note = "in black: the model; in gray: the reference" if title else ""
    return _save(contact_sheet(in_rows(tiles, columns), title=title, note=note), path)


@dataclass(frozen=True)
class Panel:
    """A picture (H, W, 3) uint8 or PIL and what is written below it."""

    image: Picture
    title: str


def panel_sheet(path: str | Path, rows: Sequence[Sequence[Panel]], legend: Mapping[str, Sequence[float]]) -> Path:
    """Large pictures side by side, row by row, above a legend of colors, each three numbers in [0, 1]."""
    if not rows or not all(rows):
        raise ValueError("a sheet needs at least one row, and a picture in each")
    tiles = [[Tile([panel.image], [Words(panel.title)]) for panel in row] for row in rows]
    colors = {name: "#" + "".join(f"{round(255 * part):02x}" for part in own) for name, own in legend.items()}
    return _save(contact_sheet(tiles, side=PANEL_SIDE, legend=colors), path)


def _save(sheet: Image.Image, path: str | Path) -> Path:
    path = Path(path)
    with whole_path(path) as partial:
        sheet.save(partial, format="PNG")
    return path
