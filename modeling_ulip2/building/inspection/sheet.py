"""A contact sheet: for each of some objects a view, its cloud from the front, its name and the view's best caption."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from modeling_ulip2.data.images import PAPER, draw_cloud, open_view
from modeling_ulip2.data.reading import decode_row

TILE, TEXT, MARGIN = 160, 52, 6  # pixels: side of a picture, height of the words, space between
COLUMNS = ["id", "name", "xyz", "rgb", "views", "captions"]
INK = (30, 30, 30)


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
    width, height = 2 * TILE + MARGIN, TILE + TEXT
    lines = -(-len(rows) // columns)
    size = (columns * (width + MARGIN) + MARGIN, lines * (height + MARGIN) + MARGIN)
    sheet, font = Image.new("RGB", size, PAPER), ImageFont.load_default(11)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        left = MARGIN + number % columns * (width + MARGIN)
        top = MARGIN + number // columns * (height + MARGIN)
        view = next((i for i, own in enumerate(row["captions"]) if own), 0)
        if row["views"]:
            sheet.paste(open_view(row["views"][view]).resize((TILE, TILE)), (left, top))
        cloud = draw_cloud(row["xyz"].astype(np.float32), row["rgb"], TILE)
        sheet.paste(Image.fromarray(cloud), (left + TILE + MARGIN, top))
        words = [row["name"] or row["id"], *(row["captions"][view][:1] if row["captions"] else [])]
        text = "\n".join(line for part in words for line in textwrap.wrap(part, 52)[:2])
        draw.multiline_text((left, top + TILE + 2), text, fill=INK, font=font, spacing=2)
    return sheet
