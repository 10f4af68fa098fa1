import json
import logging

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from modeling_ulip2.building.embedding import main
from modeling_ulip2.data.images import open_depth, open_view
from modeling_ulip2.data.reading import TripletDataset, read_triplets
from modeling_ulip2.data.records import read_log
from modeling_ulip2.towers import load_tower
from modeling_ulip2.training.features import tower_features
from modeling_ulip2.utils import files as written
from modeling_ulip2.utils.scripts import SOME_FAILED
from tests.training.world import add_features, write_dataset, write_tower

SHAPES = 7


@pytest.fixture(scope="module")
def tower_folder(tmp_path_factory):
    return write_tower(tmp_path_factory.mktemp("tower") / "tiny")


@pytest.fixture
def folder(tmp_path):
    return write_dataset(tmp_path / "data", SHAPES, depth=True, files=3)


def embed(folder, tower, *more: str) -> int:
    return main([str(folder), "--tower", str(tower), "--dtype", "float32", "--num-proc", "0", *more])


def features_of(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "features").iterdir())}


def test_the_trainer_uses_what_was_added_and_says_so(folder, tower_folder, tmp_path, caplog):
    tower = load_tower(tower_folder)
    embed(folder, tower_folder, "--depth")
    assert list(features_of(folder)) == [f"train-{shard:05d}-of-00003.parquet" for shard in range(3)]
    triplets = read_triplets(str(folder))
    with caplog.at_level(logging.INFO):
        features = tower_features(str(folder), triplets, tower, use_depth=True, cache_dir=tmp_path / "cache")
    assert "using the dataset's own features of tiny" in caplog.text and not (tmp_path / "cache").exists()
    assert features.column_names == ["id", "image_embeds", "text_embeds", "depth_embeds"]
    rows, embeds = TripletDataset(triplets), TripletDataset(triplets, features)
    for index in (0, 3, SHAPES - 1):
        row, own = rows[index], embeds[index]
        images = tower.encode_images([open_view(view) for view in row["views"]])
        depths = tower.encode_images([open_depth(view) for view in row["depths"]])
        assert own["image_embeds"].dtype == np.float16
        np.testing.assert_allclose(own["image_embeds"], images, atol=1e-3)
        np.testing.assert_allclose(own["depth_embeds"], depths, atol=1e-3)
        for of_view, captions in zip(own["text_embeds"], row["captions"], strict=True):
            np.testing.assert_allclose(of_view, tower.encode_text(captions), atol=1e-3)


def test_the_card_tells_of_the_features_and_keeps_the_rest(folder, tower_folder, tmp_path):
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\n# Boxes\n\nBy hand.\n")
    embed(folder, tower_folder)
    card = (folder / "README.md").read_text()
    assert "# Boxes\n\nBy hand." in card and card.count("config_name: features") == 2  # files, columns
    read = load_dataset(str(folder), "features", split="train", cache_dir=str(tmp_path / "cache"))
    assert len(read) == SHAPES and "depth_embeds" not in read.column_names


@pytest.mark.timeout(120)
def test_a_stopped_run_goes_on_and_rows_do_not_depend_on_the_engine(folder, tower_folder, capsys):
    embed(folder, tower_folder)
    expected = features_of(folder)
    (folder / "features" / "train-00001-of-00003.parquet").unlink()
    untouched = (folder / "features" / "train-00000-of-00003.parquet").stat().st_mtime_ns
    embed(folder, tower_folder, "--num-proc", "2")
    assert features_of(folder) == expected
    assert (folder / "features" / "train-00000-of-00003.parquet").stat().st_mtime_ns == untouched
    embed(folder, tower_folder)
    assert "complete: nothing to do" in capsys.readouterr().out


def test_other_embeddings_are_replaced_only_if_asked(tower_folder, tmp_path):
    tower = load_tower(tower_folder)
    folder = write_dataset(tmp_path / "data", 3, files=1)
    add_features(folder, tower, tmp_path / "cache")
    record = {"triplets": 3, "bytes": {"triplets": 1, "features": 2}, "data_bytes": {"triplets": 1, "features": 2}}
    manifest = {"settings": {"features": True}, "shards": {"0": record}, "stages": {}, "num_shards": 1, "format": 2}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SystemExit, match="has embeddings from its build; add --replace"):
        embed(folder, tower_folder)
    embed(folder, tower_folder, "--replace")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"]["features"] is False
    (entry,) = read_log(folder)
    assert entry.record["bytes"] == entry.record["data_bytes"] == {"triplets": 1}
    assert json.loads((folder / "features_manifest.json").read_text())["stages"]["EmbedCaptions"]["dim"] == tower.dim
    with pytest.raises(SystemExit, match="has embeddings from an earlier run"):
        main([str(folder), "--tower", str(tower_folder), "--dtype", "bfloat16", "--num-proc", "0"])


def test_files_that_cannot_be_read_are_named_before_any_work(folder, tower_folder):
    path = folder / "triplets" / "train-00001-of-00003.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SystemExit, match="1 of 3 files of triplets cannot be read, e.g. train-00001-of-00003.parquet"):
        embed(folder, tower_folder)
    assert not (folder / "features").exists()
    with pytest.raises(SystemExit, match="holds no triplets/"):
        embed(folder / "triplets", tower_folder)


def test_a_damaged_file_costs_its_rows_and_is_reported(folder, tower_folder, capsys):
    """The file opens, but what should be compressed views is nonsense."""
    path = folder / "triplets" / "train-00001-of-00003.parquet"
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(0).column(pq.read_schema(path).names.index("views")).data_page_offset
    data[start : start + 400] = bytes(400)
    path.write_bytes(data)
    assert embed(folder, tower_folder) == SOME_FAILED
    assert "could not be embedded; features_errors.parquet says why" in capsys.readouterr().err
    errors = pq.read_table(folder / "features_errors.parquet").to_pylist()
    assert {row["reason"] for row in errors} == {"unreadable_shard"} and "train-00001" in errors[0]["message"]
    rows = sum(pq.read_metadata(path).num_rows for path in (folder / "features").iterdir())
    assert rows + len(errors) == SHAPES and {row["shard"] for row in errors} == {1}


def test_a_full_disk_is_a_sentence_and_costs_nothing_that_is_done(folder, tower_folder, monkeypatch):
    calls = []

    def full(file: int) -> None:
        calls.append(file)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(written.os, "fsync", full)
    with pytest.raises(SystemExit, match="there is no space left on the disk: make room, then run the same command"):
        embed(folder, tower_folder)
    monkeypatch.undo()
    assert not list(folder.rglob("*.part"))
    embed(folder, tower_folder)
    assert len(features_of(folder)) == 3
