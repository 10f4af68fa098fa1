"""Sheets of shapes: what is on them, however long the words and whatever the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.data.contact_sheet import GAP, RIGHT, SIDE, SIZE, WRONG, Tile, Words, contact_sheet, font, wrapped
from modeling_ulip2.evaluation.reports.sheets import Hit, Panel, description_sheet, panel_sheet, retrieval_sheet
from tests.evaluation.reports.drawn import has_color, picture, pixels


def test_retrieval_sheet_shows_every_picture_and_what_is_known(tmp_path: Path):
    def sheet(name: str, *correct: bool | None) -> Path:
        shapes = [((200, 30, 200), correct[0]), ((30, 200, 200), correct[1])]
        hits = [Hit(picture(color), "a shape with quite a long name", 0.5, known) for color, known in shapes]
        return retrieval_sheet(tmp_path / name, {"a query " * 20: hits, "another": hits[:1]}, "Title")

    both = sheet("both.png", True, False)
    assert has_color(both, "#c81ec8") and has_color(both, "#1ec8c8")
    assert has_color(both, RIGHT) and has_color(both, WRONG)
    right, unknown = sheet("right.png", True, True), sheet("unknown.png", None, None)
    assert has_color(right, RIGHT) and not has_color(right, WRONG)
    assert not has_color(unknown, RIGHT) and not has_color(unknown, WRONG)
    assert pixels(both).shape == pixels(unknown).shape
    assert not list(tmp_path.glob(".*"))  # no temporary file is left


def test_panels_stand_side_by_side_above_a_legend(tmp_path: Path):
    row = [Panel(picture((200, 30, 30)), "predicted"), Panel(picture((30, 30, 200)), "truth")]
    legend = {f"name {place}": (0.0, 0.6, 0.0) for place in range(9)}
    two, one = (
        pixels(panel_sheet(tmp_path / "2.png", [row, row], legend)),
        pixels(panel_sheet(tmp_path / "1.png", [row[:1]], {})),
    )
    assert two.shape[0] > 1.7 * one.shape[0] and two.shape[1] > 1.7 * one.shape[1]
    red, blue, green = ((two == color).all(axis=-1) for color in ([200, 30, 30], [30, 30, 200], [0, 153, 0]))
    assert red.mean() > 0.3 and blue.mean() > 0.3 and 0 < green.mean() < 0.02
    assert np.nonzero(red)[1].max() < np.nonzero(blue)[1].min()
    assert np.nonzero(green)[0].min() > np.nonzero(red)[0].max()
    with pytest.raises(ValueError, match="one row"):
        panel_sheet(tmp_path / "x.png", [[]], {})


def test_an_empty_sheet_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="at least one query"):
        retrieval_sheet(tmp_path / "x.png", {})
    with pytest.raises(ValueError, match="at least one shape"):
        description_sheet(tmp_path / "x.png", [])
    with pytest.raises(ValueError, match="at least one shape"):
        contact_sheet([[]])
    with pytest.raises(ValueError, match="1 rows have 2 labels"):
        contact_sheet([[Tile([None])]], ["a", "b"])


def test_every_tile_has_its_place():
    """Two rows of unequal length: colors where the tiles are, paper where there is none."""
    red, blue = (
        Tile([picture((255, 0, 0)), None], [Words("a")]),
        Tile([picture((0, 0, 255))] * 2, [Words("b", lines=2)]),
    )
    sheet = np.asarray(contact_sheet([[red, blue], [blue]]))
    down = sheet.shape[0] - (sheet.shape[0] - GAP) // 2 + SIDE // 2
    middle = GAP + SIDE // 2
    assert sheet[middle, middle].tolist() == [255, 0, 0] and sheet[down, middle].tolist() == [0, 0, 255]
    beside = middle + 2 * SIDE + 4 + GAP
    assert sheet[middle, beside].tolist() == [0, 0, 255]
    assert sheet[down, beside].tolist() == sheet[middle, middle + SIDE].tolist() == [250, 250, 250]


@pytest.mark.parametrize("text", ["", "chair", "a chair " * 40, "x" * 300, "кресло " * 20])
def test_words_never_leave_their_place(text: str):
    lines = wrapped(text, SIZE, 150, 2)
    assert len(lines) <= 2 and all(font(SIZE).getlength(line) <= 150 for line in lines)
    assert lines[-1].endswith("…") == (len(text) > 20)
    assert (
        "".join(lines).replace(" ", "").rstrip("…")
        == text.replace(" ", "")[: len("".join(lines).replace(" ", "").rstrip("…"))]
    )
