"""A contact sheet: for each of some objects a view, its cloud from the front, its name and the view's best caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from modeling_ulip2.data.contact_sheet import SIDE, Tile, Words, contact_sheet, in_rows
from modeling_ulip2.data.images import draw_cloud, open_view
from modeling_ulip2.data.reading import decode_row

COLUMNS = ["id", "name", "xyz", "rgb", "views", "captions"]


def read_samples(files: Sequence[Path], count: int) -> list[dict[str, Any]]:
    """Rows that are spread evenly over the files."""
    sizes = [pq.read_metadata(path).num_rows for path in files]
    ends = np.cumsum(sizes)
    places = np.unique(np.linspace(0, ends[-1] - 1, min(count, ends[-1])).round().astype(int))
    rows = []
    for number, path in enumerate(files):
        inside = places[(places >= ends[number] - sizes[number]) & (places < ends[number])]
        if len(inside):
            table = pq.read_table(path, columns=COLUMNS)
            rows += [decode_row(table.slice(int(i - ends[number] + sizes[number]), 1)) for i in inside]
    return rows


def draw_sheet(rows: Sequence[dict[str, Any]], columns: int = 4) -> Image.Image:
    """One tile per object, `columns` of them side by side."""
    return contact_sheet(in_rows([_tile(row) for row in rows], columns))


def _tile(row: dict[str, Any]) -> Tile:
    view = next((i for i, own in enumerate(row["captions"]) if own), 0)
    picture = open_view(row["views"][view]) if row["views"] else None
    cloud = draw_cloud(row["xyz"].astype(np.float32), row["rgb"], SIDE)
    caption = row["captions"][view][:1] if row["captions"] else []
    return Tile([picture, cloud], [Words(row["name"] or row["id"]), *(Words(text, lines=2) for text in caption)])
