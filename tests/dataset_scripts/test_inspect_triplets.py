import io
import json

import numpy as np
import pytest
from PIL import Image

from modeling_ulip2.building.inspection.caption_statistics import CaptionStatistics
from modeling_ulip2.building.inspection.inspect import main
from modeling_ulip2.building.inspection.likeness import near_duplicates
from modeling_ulip2.building.inspection.objects import cloud_problems, view_problems
from modeling_ulip2.data.images import draw_cloud
from modeling_ulip2.data.schema import triplet_features
from modeling_ulip2.data.shards import shard_path
from modeling_ulip2.utils.parquet import write_parquet
from modeling_ulip2.utils.scripts import DONE, SOME_FAILED
from tests.training.world import STORED_POINTS, triplet_rows, write_dataset


def encoded(pixels: np.ndarray) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def picture(*box: int, color=(200, 30, 30), background=(0, 0, 0), side: int = 32) -> np.ndarray:
    """A rectangle (top, bottom, left, right) before a background."""
    pixels = np.full((side, side, 3), background, np.uint8)
    top, bottom, left, right = box
    pixels[top:bottom, left:right] = color
    return pixels


def make_rows(count: int) -> list[dict]:
    """Rows without defects, each with other shapes in its views."""
    rows = triplet_rows(count)
    for number, row in enumerate(rows):
        rng = np.random.default_rng(number)
        row["views"] = []
        for _ in row["azimuths"]:
            pixels = np.zeros((32, 32, 3), np.uint8)
            pixels[6:26, 6:26] = np.kron(rng.integers(60, 255, (5, 5, 3)), np.ones((4, 4, 1))).astype(np.uint8)
            row["views"].append(encoded(pixels))
    return rows


def write_rows(folder, rows) -> None:
    write_parquet(shard_path(folder, "triplets", 0, 1), rows, triplet_features(STORED_POINTS))


def inspect(folder, output, *more: str, status: int = DONE) -> dict:
    assert main([str(folder), "--output", str(output), "--num-proc", "0", *more]) == status
    return json.loads((output / "report.json").read_text())


def test_every_planted_defect_is_found_and_nothing_else(tmp_path, capsys):
    rows = make_rows(12)
    names = [row["id"] for row in rows]
    rows[1]["views"][1] = encoded(picture(0, 0, 0, 0))
    rows[2]["views"][0] = encoded(picture(0, 20, 5, 20))
    rows[3]["rgb"] = np.full((STORED_POINTS, 3), 255, np.uint8)
    rows[4]["xyz"] = rows[4]["xyz"].copy()
    rows[4]["xyz"][:, 1] = 0.5
    rows[5]["views"][2] = {"bytes": b"no picture", "path": None}
    rows[6]["captions"], rows[6]["caption_scores"] = [[], [], []], [[], [], []]
    rows[8]["views"] = list(rows[7]["views"])
    rows[10]["id"] = names[9]
    write_rows(tmp_path / "data", rows)
    (tmp_path / "data" / "triplets" / "train-00009.parquet").write_bytes(b"PAR1 and no more")
    report = inspect(tmp_path / "data", tmp_path / "out", status=SOME_FAILED)
    told = capsys.readouterr()
    assert "1 files cannot be read" in told.err
    assert report["problems"] == {
        names[1]: {"blank view": "1 of 3 views: 1"},
        names[2]: {"cut-off view": "1 of 3 views: 0"},
        names[3]: {"colorless cloud": "every point is (255, 255, 255)"},
        names[4]: {"flat cloud": report["problems"][names[4]]["flat cloud"]},
        names[5]: {"unreadable view": report["problems"][names[5]]["unreadable view"]},
        names[6]: {"no captions": ""},
    }
    assert report["near_duplicates"] == [[names[7], names[8]]] and report["repeated_ids"] == [names[9]]
    assert list(report["unreadable_files"]) == ["train-00009.parquet"]
    assert report["counts"]["objects"] == report["counts"]["inspected"] == 12
    printed = told.out
    assert printed.strip() == (tmp_path / "out" / "report.md").read_text().strip()
    for text in (f"`{names[2]}`: 1 of 3 views: 0", "**look the same**: 2 objects in 1 groups", "train-00009.parquet"):
        assert text in printed


def test_good_triplets_have_no_defects_and_the_folder_stays_as_it_is(tmp_path):
    write_rows(tmp_path / "data", make_rows(5))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    report = inspect(tmp_path / "data", tmp_path / "out")
    assert report["problems"] == {} and report["near_duplicates"] == [] and report["repeated_ids"] == []
    assert "None was found." in (tmp_path / "out" / "report.md").read_text()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")} == before


def test_a_sample_is_spread_over_all_files(tmp_path):
    folder = write_dataset(tmp_path / "data", 12, files=4)
    report = inspect(folder, tmp_path / "out", "--sample", "4", "--samples-on-sheet", "5")
    assert report["counts"]["objects"] == 12 and report["counts"]["inspected"] == 4
    with Image.open(tmp_path / "out" / "samples.png") as sheet:
        assert np.asarray(sheet).std() > 20
        assert sheet.height > 2 * 160  # five tiles, four in a row


def test_a_folder_without_triplets_is_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no triplets/"):
        inspect(tmp_path, tmp_path / "out")


def test_white_objects_before_a_known_white_background():
    """The manifest's background decides, not the border, which a cut-off object may fill."""
    filled = picture(0, 32, 0, 32)
    assert view_problems([filled], [255, 255, 255]) == {"cut-off view": "1 of 1 views: 0"}
    assert view_problems([filled], None) == {"blank view": "1 of 1 views: 0"}
    noise = np.random.default_rng(0).integers(0, 12, (32, 32, 3), dtype=np.uint8)
    assert view_problems([noise + picture(8, 20, 8, 20)], [0, 0, 0]) == {}


def test_clouds():
    rng = np.random.default_rng(0)
    xyz, rgb = rng.normal(size=(50, 3)).astype(np.float32), np.full((50, 3), (255, 0, 0), np.uint8)
    assert cloud_problems(xyz, rgb) == {}  # one color is a color
    assert "colorless cloud" in cloud_problems(xyz, rgb * 0 + 128)
    assert "flat cloud" in cloud_problems(xyz * [1, 1, 1e-5], rgb)
    assert "not finite" in cloud_problems(np.where(xyz > 2, np.nan, xyz) * np.inf, rgb)


def test_caption_statistics_by_hand():
    statistics = CaptionStatistics()
    statistics.add([["a red chair", "a chair"], ["a chair", "a chair"]], [[0.41, 0.22], [0.31, 0.29]])
    statistics.add([["a chair"], []], [[-0.07], []])
    summary = statistics.summary()
    assert (summary["captions"], summary["views_without_captions"], summary["repeated_within_a_view"]) == (5, 1, 1)
    assert summary["captions_per_view"] == 5 / 4
    assert summary["words"] == {"mean": 11 / 5, "min": 2, "median": 2, "max": 3}
    assert summary["distinct_1"] == 3 / 11 and summary["distinct_2"] == 3 / 6
    assert summary["different_captions"] == 2 and summary["shared_between_objects"] == 2 / 3
    assert summary["most_frequent_best"] == [("a chair", 2), ("a red chair", 1)]
    assert sum(count for *_, count in summary["scores"]) == 5
    assert [entry for entry in summary["best_scores"] if entry[2]] == [
        (-0.1, -0.05, 1),
        (0.3, 0.35, 1),
        (0.4, 0.45, 1),
    ]


def test_objects_of_other_colors_or_turned_are_no_duplicates():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 200, (4, 8, 8, 3), dtype=np.uint8)
    noisy = (one + rng.integers(0, 3, one.shape)).astype(np.uint8)
    thumbnails = [one, one[..., ::-1], noisy, one[:, :, ::-1], one[:2]]
    assert near_duplicates(list("abcde"), thumbnails) == [["a", "c"]]


def test_slender_objects_are_not_alike_for_their_background():
    thumbnails = [np.full((4, 8, 8, 3), 255, np.uint8) for _ in range(3)]
    thumbnails[0][:, 4] = 204
    thumbnails[1][:, 4] = 179
    thumbnails[2][:, 4] = 203
    assert near_duplicates(list("abc"), thumbnails) == [["a", "c"]]


def test_a_cloud_is_drawn_from_the_front_with_near_points_on_top():
    xyz = np.array([[0, 0, 1], [0, 0, -1], [1, 1, 0], [-1, -1, 0]], np.float32)
    rgb = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    drawn = draw_cloud(xyz, rgb, side=40)
    assert tuple(drawn[20, 20]) == (255, 0, 0)
    up = np.argwhere((drawn == (0, 0, 255)).all(axis=-1)).mean(axis=0)
    assert up[0] < 20 < up[1]  # above and to the right of the middle
