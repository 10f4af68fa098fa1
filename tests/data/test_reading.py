from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value

from modeling_ulip2.data.images import open_view
from modeling_ulip2.data.reading import TripletDataset, decode_row, read_split, read_triplets, select_ids
from tests.training.world import DIM, NUM_VIEWS, STORED_POINTS, triplet_rows, write_dataset


@pytest.fixture(scope="module")
def triplets(dataset) -> Dataset:
    return read_triplets(str(dataset))


@pytest.fixture(scope="module")
def features(triplets) -> Dataset:
    """In reverse order; the values tell the row."""
    rows = [
        {
            "id": name,
            "image_embeds": np.full((NUM_VIEWS, DIM), i),
            "text_embeds": [[[i] * DIM] * (2 if view == 0 else 1) for view in range(NUM_VIEWS)],
        }
        for i, name in enumerate(triplets["id"])
    ]
    embedding = List(Value("float16"), length=DIM)
    columns = Features({"id": Value("string"), "image_embeds": List(embedding), "text_embeds": List(List(embedding))})
    return Dataset.from_list(rows[::-1], features=columns)


def test_rows_hold_what_was_written(triplets):
    rows, written = TripletDataset(triplets), triplet_rows(depth=True)
    assert len(rows) == 16
    for index in (0, 9, 15):
        row, expected = rows[index], written[index]
        assert row["id"] == expected["id"] and row["captions"] == expected["captions"]
        for name, dtype in (("xyz", np.float16), ("rgb", np.uint8)):
            assert row[name].dtype == dtype and row[name].shape == (STORED_POINTS, 3)
            np.testing.assert_array_equal(row[name], expected[name])
        for view, image in zip(row["views"], expected["views"], strict=True):
            np.testing.assert_array_equal(np.asarray(open_view(view)), np.asarray(image))
        assert len(row["depths"]) == NUM_VIEWS


def test_features_are_joined_by_id(triplets, features):
    rows = TripletDataset(triplets.select([3, 11, 5]), features)
    for index, original in enumerate([3, 11, 5]):
        row = rows[index]
        assert row["id"] == f"made/{original:02d}.obj" and "views" not in row
        assert row["image_embeds"].shape == (NUM_VIEWS, DIM) and row["image_embeds"].dtype == np.float16
        assert [len(own) for own in row["text_embeds"]] == [2, 1, 1]
        assert (row["image_embeds"] == original).all() and all((own == original).all() for own in row["text_embeds"])


def test_rows_without_features_are_named(triplets, features):
    with pytest.raises(ValueError, match="1 of 16 rows have no tower features, e.g. 'made/15.obj'"):
        TripletDataset(triplets, features.select(range(1, 16)))


def test_arrays_share_the_memory_of_the_table(triplets):
    row = TripletDataset(triplets)[4]
    assert not row["xyz"].flags.owndata and not row["xyz"].flags.writeable


@pytest.mark.parametrize(
    "value",
    [[[1.0, 2.0], [3.0, 4.0]], [[1.0], [2.0, 3.0]], [[], [1.0]], [], [[]]],
    ids=["even", "ragged", "one empty", "empty", "empty inside"],
)
def test_lists_of_any_lengths(value):
    column = Dataset.from_dict({"a": [value]}, features=Features({"a": List(List(Value("float32")))}))
    decoded = decode_row(column.with_format("arrow")[0])["a"]
    assert [list(map(float, own)) for own in decoded] == value


def test_decoding_a_row_in_the_middle_of_a_table():
    ragged = [[[1.0] * i] * (i % 3) for i in range(6)]
    column = Dataset.from_dict({"a": ragged}, features=Features({"a": List(List(Value("float16")))}))
    for index, expected in enumerate(ragged):
        decoded = decode_row(column.with_format("arrow")[index])["a"]
        assert [list(map(float, own)) for own in decoded] == expected


def test_selecting_ids_keeps_the_order_and_tells_what_is_missing(triplets, caplog):
    with caplog.at_level("WARNING"):
        chosen = select_ids(triplets, ["made/07.obj", "made/02.obj", "elsewhere"], "test")
    assert list(chosen["id"]) == ["made/02.obj", "made/07.obj"]
    assert "1 of 3 test ids are not in the dataset, e.g. 'elsewhere'" in caplog.text
    assert list(select_ids(chosen, ["made/07.obj"], "test")["id"]) == ["made/07.obj"]
    with pytest.raises(ValueError, match="none of the 1 test ids"):
        select_ids(triplets, ["elsewhere"], "test")


def test_split_files(tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["a"], "test": ["b"], "note": "x"}))
    assert read_split(path) == {"train": ["a"], "test": ["b"]}
    path.write_text(json.dumps({"train": ["a", "b"], "test": ["b"]}))
    with pytest.raises(ValueError, match="1 ids are both in train and in test, e.g. 'b'"):
        read_split(path)
    path.write_text(json.dumps({"train": ["a"]}))
    with pytest.raises(ValueError, match="must hold"):
        read_split(path)


def test_folders_that_are_no_dataset(tmp_path):
    with pytest.raises(FileNotFoundError, match="nor on the hub"):
        read_triplets(str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="holds no parquet shard"):
        read_triplets(str(tmp_path))


def test_a_folder_is_read_as_it_is_now(tmp_path):
    """Folders of one name, and a folder that was built anew, have the same card: no cache may mix them up."""
    first, second = (
        write_dataset(tmp_path / place / "same_name", shapes, files=1) for place, shapes in (("a", 3), ("b", 5))
    )
    assert [len(read_triplets(str(folder))) for folder in (first, second)] == [3, 5]
    shutil.rmtree(first)
    write_dataset(first, 4, files=1)
    assert len(read_triplets(str(first))) == 4
