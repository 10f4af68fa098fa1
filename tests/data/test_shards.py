import io
import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from modeling_ulip2.data.schema import error_features, features_features, triplet_features
from modeling_ulip2.data.shards import BuildFolder, OutputError, shard_path
from modeling_ulip2.utils.parquet import write_parquet

NUM_POINTS, VIEWS, DIM = 50, 3, 8
OBJECTS = [{"id": f"{i}.obj", "path": f"{i}.obj"} for i in range(10)]
SETTINGS = {"num_points": NUM_POINTS, "views": VIEWS, "seed": 0}


def make_row(index: int) -> dict:
    rng = np.random.default_rng(index)
    views = []
    for _ in range(VIEWS):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(256, size=(16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
        views.append({"bytes": buffer.getvalue(), "path": None})
    captions = [["a", "b"], ["c"], []]
    return {
        "id": f"{index}.obj",
        "source": "made",
        "name": "Größe",
        "license": "cc0-1.0",
        "creator": "",
        "xyz": rng.normal(size=(NUM_POINTS, 3)).astype(np.float16),
        "rgb": rng.integers(256, size=(NUM_POINTS, 3), dtype=np.uint8),
        "views": views,
        "azimuths": [0.0, 120.0, 240.0],
        "elevations": [15.0] * VIEWS,
        "distances": [4.0] * VIEWS,
        "shifts": [[0.0, 0.0]] * VIEWS,
        "fov": 40.0,
        "size": 16,
        "target": [0.0, 0.5, 0.0],
        "captions": captions,
        "caption_scores": [[0.5, 0.25], [0.125], []],
        "image_embeds": rng.normal(size=(VIEWS, DIM)).astype(np.float16),
        "text_embeds": [rng.normal(size=(len(own), DIM)).astype(np.float16) for own in captions],
    }


@pytest.mark.parametrize("streaming", [False, True])
def test_what_load_dataset_reads_is_what_was_written(tmp_path, streaming):
    rows = [make_row(i) for i in range(4)]
    for shard in range(2):
        part = rows[2 * shard : 2 * shard + 2]
        write_parquet(shard_path(tmp_path, "triplets", shard, 2), part, triplet_features(NUM_POINTS))
        write_parquet(shard_path(tmp_path, "features", shard, 2), part, features_features(DIM))
    files = {name: str(tmp_path / name / "*.parquet") for name in ("triplets", "features")}
    cache = str(tmp_path / "cache")
    read = load_dataset("parquet", data_files=files["triplets"], split="train", streaming=streaming, cache_dir=cache)
    assert read.features == triplet_features(NUM_POINTS)
    for row, found in zip(rows, read, strict=True):
        for name in ("id", "source", "name", "license", "creator", "captions", "caption_scores", "azimuths"):
            assert found[name] == row[name]
        np.testing.assert_array_equal(np.array(found["xyz"], dtype=np.float16), row["xyz"])
        np.testing.assert_array_equal(np.array(found["rgb"]), row["rgb"])
        for view, stored in zip(found["views"], row["views"], strict=True):
            np.testing.assert_array_equal(np.asarray(view), np.asarray(Image.open(io.BytesIO(stored["bytes"]))))
    read = load_dataset("parquet", data_files=files["features"], split="train", streaming=streaming, cache_dir=cache)
    assert read.features == features_features(DIM)
    for row, found in zip(rows, read, strict=True):
        np.testing.assert_array_equal(np.array(found["image_embeds"], dtype=np.float16), row["image_embeds"])
        for ours, theirs in zip(row["text_embeds"], found["text_embeds"], strict=True):
            np.testing.assert_array_equal(np.array(theirs, dtype=np.float16).reshape(-1, DIM), ours)


def test_arrays_keep_their_types_on_disk(tmp_path):
    write_parquet(tmp_path / "a.parquet", [make_row(0)], triplet_features(NUM_POINTS))
    schema = pq.read_schema(tmp_path / "a.parquet")
    assert str(schema.field("xyz").type.storage_type) == "list<item: list<item: halffloat>>"
    assert str(schema.field("rgb").type.storage_type) == "list<item: list<item: uint8>>"


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    path = tmp_path / "shard.parquet"
    write_parquet(path, [make_row(0)], triplet_features(NUM_POINTS))
    before = path.read_bytes()
    with pytest.raises(Exception, match="azimuths|convert|float"):
        write_parquet(path, [make_row(1) | {"azimuths": ["north"]}], triplet_features(NUM_POINTS))
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def open_folder(path, settings=SETTINGS, objects=OBJECTS, shard_size=4) -> BuildFolder:
    return BuildFolder(path, settings, objects, shard_size)


def finish_shard(folder: BuildFolder, shard: int, errors=(), **counts) -> None:
    path = shard_path(folder.path, "triplets", shard, folder.num_shards)
    size, _ = write_parquet(path, [make_row(shard)], triplet_features(NUM_POINTS))
    folder.commit(shard, {"triplets": 1, "bytes": {"triplets": size}, **counts}, errors)


def test_a_build_goes_on_where_it_was(tmp_path):
    with open_folder(tmp_path / "new" / "out") as folder:
        assert folder.missing_shards() == [0, 1, 2]
        finish_shard(folder, 1, errors=[{"id": "5.obj", "reason": "empty", "message": "it holds no triangle"}])
    with open_folder(folder.path) as folder:
        assert folder.missing_shards() == [0, 2]
        assert pq.read_table(folder.path / "errors.parquet").to_pylist() == [
            {"id": "5.obj", "reason": "empty", "message": "it holds no triangle", "shard": 1}
        ]
        finish_shard(folder, 2)
        finish_shard(folder, 0)
    with open_folder(folder.path) as folder:
        assert folder.missing_shards() == []
        assert folder.totals()["triplets"] == 3


def test_a_shard_done_again_replaces_its_errors_and_counts(tmp_path):
    error = {"id": "0.obj", "reason": "empty", "message": ""}
    with open_folder(tmp_path) as folder:
        finish_shard(folder, 0, errors=[error], errors_by_reason={"empty": 1})
        finish_shard(folder, 1, errors=[error | {"id": "4.obj"}], errors_by_reason={"empty": 1})
        finish_shard(folder, 0, errors_by_reason={})
        assert folder.totals()["errors_by_reason"] == {"empty": 1}
    assert [row["id"] for row in pq.read_table(tmp_path / "errors.parquet").to_pylist()] == ["4.obj"]
    with open_folder(tmp_path) as folder:
        assert folder.totals()["errors_by_reason"] == {"empty": 1} and folder.totals()["triplets"] == 2


@pytest.mark.parametrize("damage", ["deleted", "truncated"])
def test_a_lost_or_damaged_file_is_made_again(tmp_path, damage):
    with open_folder(tmp_path) as folder:
        for shard in range(3):
            finish_shard(folder, shard)
        path = shard_path(tmp_path, "triplets", 1, 3)
        path.unlink() if damage == "deleted" else path.write_bytes(path.read_bytes()[:100])
        assert folder.missing_shards() == [1]


def test_other_settings_are_refused_by_name(tmp_path):
    with open_folder(tmp_path) as folder:
        finish_shard(folder, 0)
    with pytest.raises(OutputError, match=r"views was 3 and is now 6; seed was 0 and is now 1\."):
        open_folder(tmp_path, SETTINGS | {"views": 6, "seed": 1}).__enter__()
    with pytest.raises(OutputError, match="depth was null and is now true"):
        open_folder(tmp_path, SETTINGS | {"depth": True}).__enter__()
    with pytest.raises(OutputError, match="shard_size was 4 and is now 5"):
        open_folder(tmp_path, shard_size=5).__enter__()
    with open_folder(tmp_path) as folder:
        assert folder.missing_shards() == [1, 2]


def test_settings_may_change_while_there_is_nothing_to_lose(tmp_path):
    with open_folder(tmp_path):
        pass
    with open_folder(tmp_path, SETTINGS | {"views": 6}, OBJECTS[:5]) as folder:
        assert folder.manifest["settings"]["views"] == 6 and folder.missing_shards() == [0, 1]


def test_other_objects_are_refused(tmp_path):
    with open_folder(tmp_path) as folder:
        finish_shard(folder, 0)
    with pytest.raises(OutputError, match="10 then, 9 now"):
        open_folder(tmp_path, objects=OBJECTS[:9]).__enter__()
    with pytest.raises(OutputError, match="other names, places or order"):
        open_folder(tmp_path, objects=OBJECTS[::-1]).__enter__()


def test_another_tower_is_refused_once_shards_exist(tmp_path):
    with open_folder(tmp_path) as folder:
        folder.check_stages({"EmbedViews": {"fingerprint": "one"}})
        folder.check_stages({"EmbedViews": {"fingerprint": "two"}})  # nothing was made with the first
        finish_shard(folder, 0)
        folder.check_stages({"EmbedViews": {"fingerprint": "two"}})
        with pytest.raises(OutputError, match=r'EmbedViews \{"fingerprint": "two"\}, which is now .*"three"'):
            folder.check_stages({"EmbedViews": {"fingerprint": "three"}})


def test_outputs_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write into .*file"):
        open_folder(tmp_path / "file" / "out").__enter__()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("")
    with pytest.raises(OutputError, match=r"holds 'cat.jpg' but no manifest.json"):
        open_folder(tmp_path / "photos").__enter__()
    (tmp_path / "damaged").mkdir()
    for content in ("{", "[]", "{}"):
        (tmp_path / "damaged" / "manifest.json").write_text(content)
        with pytest.raises(OutputError, match=r"manifest.json is damaged"):
            open_folder(tmp_path / "damaged").__enter__()
    with open_folder(tmp_path / "out") as folder:
        finish_shard(folder, 0)
        manifest = folder.manifest | {"format": 99}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="another version"):
        open_folder(tmp_path / "out").__enter__()


def test_a_second_build_at_the_same_time_is_refused(tmp_path):
    with open_folder(tmp_path):
        with pytest.raises(OutputError, match="another build is writing"):
            open_folder(tmp_path).__enter__()
    with open_folder(tmp_path) as folder:  # the first one is over
        assert folder.missing_shards() == [0, 1, 2]


def test_leftovers_of_a_killed_build_are_removed(tmp_path):
    with open_folder(tmp_path) as folder:
        finish_shard(folder, 0)
    leftover = tmp_path / "triplets" / ".train-00001-of-00003.parquet.123.part"
    leftover.write_bytes(b"half a shard")
    with open_folder(tmp_path):
        assert not leftover.exists()
    files = ["errors.parquet", "manifest.json", "shards.jsonl", "triplets", "warnings.parquet"]
    assert sorted(os.listdir(tmp_path)) == files


def test_the_table_of_errors_exists_without_errors(tmp_path):
    with open_folder(tmp_path) as folder:
        finish_shard(folder, 0)
    table = pq.read_table(tmp_path / "errors.parquet")
    assert table.num_rows == 0 and table.column_names == list(error_features())
