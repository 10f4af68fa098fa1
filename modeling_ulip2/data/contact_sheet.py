"""A contact sheet: shapes side by side, each with one or two pictures and some words below.

What inspections, dataset cards, retrievals and captioners show is laid out here; what the words say is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from modeling_ulip2.data.images import PAPER

INK, MUTED, RIGHT, WRONG = "#1f2933", "#6b7785", "#1b7f5c", "#b4462c"
SIDE, GAP = 160, 12  # pixels: side of a picture, space between tiles
SIZE, LEADING = 12, 15  # pixels: of letters, and from line to line
LABEL = 210  # pixels, of what stands left of a row
LEGEND = 130  # pixels, of an entry of the legend
INSIDE = 4  # pixels, between the pictures of a tile and above its words

Picture = Image.Image | np.ndarray


@dataclass(frozen=True)
class Words:
    """What stands below a picture: a text of at most `lines` lines; what does not fit ends in an ellipsis."""

    text: str
    color: str = INK
    lines: int = 1


@dataclass(frozen=True)
class Tile:
    """A shape on a sheet.

    pictures: side by side, (H, W, 3) uint8 or PIL; None leaves a place empty. mark: True draws a frame and a tick,
    False a frame and a cross, None neither.
    """

    pictures: Sequence[Picture | None]
    words: Sequence[Words] = ()
    mark: bool | None = None


def in_rows(tiles: Sequence[Tile], columns: int) -> list[Sequence[Tile]]:
    """Tiles in rows of `columns`, the last one perhaps shorter."""
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]


def contact_sheet(
    rows: Sequence[Sequence[Tile]],
    labels: Sequence[str] | None = None,
    title: str = "",
    note: str = "",
    side: int = SIDE,
    legend: Mapping[str, str] | None = None,
) -> Image.Image:
    """Draws a sheet.

    Args:
        rows: tiles from left to right.
        labels: what stands left of each row; None: nothing.
        title, note: above all, left and right.
        side: of a picture, in pixels.
        legend: below all, words and the color of the square before each.

    Raises:
        ValueError: there is no tile, or a row without a label.
    """
    if not any(rows):
        raise ValueError("a contact sheet needs at least one shape")
    if labels is not None and len(labels) != len(rows):
        raise ValueError(f"{len(rows)} rows have {len(labels)} labels")
    pictures = max(len(tile.pictures) for row in rows for tile in row)
    lines = max(sum(words.lines for words in tile.words) for row in rows for tile in row)
    wide, high = pictures * (side + INSIDE) - INSIDE, side + INSIDE + lines * LEADING
    left, top = GAP + (LABEL + GAP if labels else 0), GAP + (2 * LEADING if title or note else 0)
    width = left + max(len(row) for row in rows) * (wide + GAP)
    per_line = max(1, (width - GAP) // (LEGEND + GAP))
    height = top + len(rows) * (high + GAP)
    foot = LEADING * -(-len(legend) // per_line) + GAP if legend else 0
    sheet = Image.new("RGB", (width, height + foot), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, GAP), title, INK, font(SIZE + 4))
    pen.text((width - GAP - font(SIZE).getlength(note), GAP + 3), note, MUTED, font(SIZE))
    for row, tiles in enumerate(rows):
        down = top + row * (high + GAP)
        if labels:
            said = wrapped(labels[row], SIZE + 2, LABEL, 5)
            start = down + (side - len(said) * (LEADING + 3)) // 2
            for line, text in enumerate(said):
                pen.text((GAP, start + line * (LEADING + 3)), text, INK, font(SIZE + 2))
        for column, tile in enumerate(tiles):
            _draw_tile(sheet, pen, tile, left + column * (wide + GAP), down, wide, side)
    for place, (name, color) in enumerate((legend or {}).items()):
        line, column = divmod(place, per_line)
        corner = (GAP + column * (LEGEND + GAP), height + line * LEADING)
        pen.rectangle((*corner, corner[0] + SIZE - 3, corner[1] + SIZE - 3), fill=color)
        (word,) = wrapped(name, SIZE, LEGEND - LEADING, 1)
        pen.text((corner[0] + LEADING, corner[1] - 2), word, INK, font(SIZE))
    return sheet


def _draw_tile(sheet: Image.Image, pen: Any, tile: Tile, left: int, top: int, wide: int, side: int) -> None:
    for place, picture in enumerate(tile.pictures):
        if picture is not None:
            sheet.paste(_squared(picture, side), (left + place * (side + INSIDE), top))
    down, room = top + side + INSIDE, wide - (SIZE if tile.mark is not None else 0)
    for words in tile.words:
        for line, text in enumerate(wrapped(words.text, SIZE, room, words.lines)):
            pen.text((left, down + line * LEADING), text, words.color, font(SIZE))
        down += words.lines * LEADING
    if tile.mark is None:
        return
    color, corner = ImageColor.getrgb(RIGHT if tile.mark else WRONG), (left + wide - SIZE, top + side + INSIDE + 2)
    pen.rectangle((left, top, left + wide - 1, top + side - 1), outline=color, width=2)
    # drawn, as not every font has them
    strokes = [((0, 5), (4, 9), (10, 0))] if tile.mark else [((0, 0), (9, 9)), ((0, 9), (9, 0))]
    for stroke in strokes:
        pen.line([(corner[0] + x, corner[1] + y) for x, y in stroke], fill=color, width=2)


def _squared(picture: Picture, side: int) -> Image.Image:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture))
    return image.convert("RGB").resize((side, side))


@cache
def font(size: int) -> Any:
    """Letters of that size in pixels: DejaVu Sans, for its alphabets, where matplotlib brings it; else Pillow's."""
    found = find_spec("matplotlib")
    if found is not None and found.submodule_search_locations:
        path = Path(found.submodule_search_locations[0], "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def wrapped(text: str, size: int, width: int, lines: int) -> list[str]:
    """A text in at most `lines` lines of at most `width` pixels; what is left out is an ellipsis."""
    words, found = text.split(), [""]
    while words:
        longer = f"{found[-1]} {words[0]}".strip()
        if font(size).getlength(longer) <= width:
            found[-1] = longer
            words.pop(0)
        elif found[-1] and len(found) < lines:
            found.append("")
        else:  # the last line, or a word that is longer than a line
            cut = longer
            while cut and font(size).getlength(f"{cut}…") > width:
                cut = cut[:-1]
            return [*found[:-1], f"{cut.rstrip()}…"]
    return found
