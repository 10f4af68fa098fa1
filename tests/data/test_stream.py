"""Streams of triplets: with images and captions, and joined with the tower's embeddings."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from torch.utils.data import DataLoader

from modeling_ulip2.data.reading import TripletDataset, config_files, load_config, read_triplets
from modeling_ulip2.data.stream import TripletStream, joined_rows
from modeling_ulip2.training.features import streamed_features
from tests.training.world import NUM_VIEWS, add_features, triplet_rows, write_dataset, write_manifest


@pytest.fixture(scope="module")
def joined(tower, tmp_path_factory) -> Path:
    """A folder of four files of triplets, with the embeddings of each in a file beside it."""
    folder = write_dataset(tmp_path_factory.mktemp("joined") / "data", 16, depth=True, files=4)
    add_features(folder, tower, folder.parent / "cache", depth=True, beside=True)
    return folder


def test_a_stream_passes_over_the_data_again_and_again(dataset):
    stream = TripletStream(read_triplets(str(dataset), streaming=True))
    rows = list(islice(stream, 40))
    ids = [row["id"] for row in rows]
    assert [row["epoch"] for row in rows] == [0] * 16 + [1] * 16 + [2] * 8
    assert ids[:16] == ids[16:32] == [f"made/{i:02d}.obj" for i in range(16)]
    np.testing.assert_array_equal(rows[5]["xyz"], triplet_rows(depth=True)[5]["xyz"])
    assert len(rows[0]["views"]) == NUM_VIEWS and isinstance(rows[0]["views"][0]["bytes"], bytes)


def test_a_stream_is_shuffled_differently_in_each_pass_and_the_same_in_each_run(dataset):
    def ids(seed: int) -> list[str]:
        stream = TripletStream(read_triplets(str(dataset), streaming=True), seed=seed, shuffle_buffer=8)
        return [row["id"] for row in islice(stream, 32)]

    once = ids(0)
    assert once == ids(0) != ids(1)
    assert once[:16] != once[16:]
    assert sorted(once[:16]) == sorted(once[16:]) == [f"made/{i:02d}.obj" for i in range(16)]


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_a_stream(dataset, num_processes):
    """Two processes read a file each, three read all: either way each row is used once per pass."""
    source = read_triplets(str(dataset), streaming=True)
    passes = [
        [row["id"] for row in takewhile(lambda row: row["epoch"] == 0, pickle.loads(pickle.dumps(stream)))]
        for stream in (TripletStream(source, None, 0, 8, index, num_processes) for index in range(num_processes))
    ]
    assert sorted(sum(passes, [])) == [f"made/{i:02d}.obj" for i in range(16)]
    assert max(map(len, passes)) - min(map(len, passes)) <= 1


def test_workers_share_a_stream(dataset):
    source = read_triplets(str(dataset), streaming=True)
    stream = TripletStream(source, ids=["made/01.obj", "made/02.obj", "made/14.obj"])
    assert [row["id"] for row in islice(stream, 4)] == ["made/01.obj", "made/02.obj", "made/14.obj", "made/01.obj"]
    loader = DataLoader(stream, batch_size=None, num_workers=3, multiprocessing_context="fork")
    seen = Counter((row["id"], row["epoch"]) for row in islice(loader, 8))
    assert set(seen.values()) == {1} and len({name for name, _ in seen}) == 3


def test_processes_and_their_workers_read_rows_of_their_own(tmp_path):
    """Two processes with two workers each, four files: no row is read twice in a pass, none is left out."""
    source = read_triplets(str(write_dataset(tmp_path / "data", 16, files=4)), streaming=True)
    read: list[set[str]] = []
    for process in range(2):
        stream = TripletStream(source, shuffle_buffer=3, process_index=process, num_processes=2)
        loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")
        rows = list(islice(loader, 8))
        assert {row["epoch"] for row in rows} == {0}
        read.append({row["id"] for row in rows})
    assert [len(ids) for ids in read] == [8, 8] and len(read[0] | read[1]) == 16


def test_a_stream_without_a_wanted_row_says_so(dataset):
    with pytest.raises(ValueError, match="no row of the training split"):
        next(iter(TripletStream(read_triplets(str(dataset), streaming=True), ids=["elsewhere"])))


@pytest.mark.parametrize("use_depth", [False, True])
def test_a_joined_stream_holds_what_the_dataset_holds(joined, tower, use_depth, caplog):
    caplog.set_level(logging.INFO)
    stream = TripletStream(streamed_features(str(joined), tower, use_depth))
    assert stream.has_features and f"using the dataset's own features of {tower.name}" in caplog.text
    expected = TripletDataset(read_triplets(str(joined)), load_config(str(joined), "features"))
    for index, row in enumerate(islice(stream, 16)):
        other = expected[index]
        assert set(row) == {"id", "xyz", "rgb", "image_embeds", "text_embeds", "epoch"} | (
            {"depth_embeds"} if use_depth else set()
        )
        assert row["id"] == other["id"]
        for name in set(row) - {"id", "epoch", "text_embeds"}:
            assert row[name].dtype == other[name].dtype
            np.testing.assert_array_equal(row[name], other[name])
        for own, texts in zip(row["text_embeds"], other["text_embeds"], strict=True):
            np.testing.assert_array_equal(own, texts)


def test_processes_and_workers_share_a_joined_stream(joined, tower):
    read: list[list[str]] = []
    for process in range(2):
        stream = TripletStream(streamed_features(str(joined), tower), None, 0, 3, process, 2)
        stream = pickle.loads(pickle.dumps(stream))
        loader = DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")
        passes = [row["id"] for row in islice(loader, 16)]
        assert passes[:8] != passes[8:] and sorted(passes[:8]) == sorted(passes[8:])
        read.append(passes[:8])
    assert sorted(sum(read, [])) == [f"made/{i:02d}.obj" for i in range(16)]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("another tower", "come from conse-0, not from"),
        ("no features", "cannot be read"),
        ("other files", "lie in other files than its triplets"),
        ("depth", "leave out depth views"),
    ],
)
def test_features_that_do_not_fit_a_stream(tower, tmp_path, caplog, reason, said):
    caplog.set_level(logging.INFO)
    folder = write_dataset(tmp_path / "data", 16, depth=True, files=4)
    if reason in ("other files", "depth"):
        add_features(folder, tower, tmp_path / "cache", depth=reason == "other files", beside=reason == "depth")
    write_manifest(folder, "conse-0" if reason == "another tower" else tower.fingerprint)
    assert streamed_features(str(folder), tower, use_depth=True) is None
    assert said in caplog.text


@pytest.mark.parametrize("damage", ["another order", "a row less"])
def test_features_of_other_shapes_end_the_stream(joined, tmp_path, damage):
    triplets, features = (config_files(str(joined), config) for config in ("triplets", "features"))
    table = pq.read_table(features[2])
    other = table.take(list(range(len(table)))[::-1]) if damage == "another order" else table.slice(1)
    pq.write_table(other, tmp_path / "other.parquet")
    features[2] = str(tmp_path / "other.parquet")
    rows = iter(TripletStream(joined_rows(triplets, features)))
    assert [row["id"] for row in islice(rows, 8)] == [f"made/{i:02d}.obj" for i in range(8)]
    with pytest.raises(ValueError, match="other.parquet does not hold the embeddings of .*--replace"):
        next(rows)
