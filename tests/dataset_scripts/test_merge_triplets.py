import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import Features, Value, load_dataset

from modeling_ulip2.building.merging import main, merge
from modeling_ulip2.building.meshes import main as build
from modeling_ulip2.data.reading import read_triplets
from modeling_ulip2.data.records import OutputError, read_log
from modeling_ulip2.data.schema import triplet_features
from modeling_ulip2.data.shards import BuildFolder, shard_path
from modeling_ulip2.utils.parquet import write_table
from tests.data.test_records import die_at, state

from .shapes import build_arguments, write_box


@pytest.fixture(scope="module")
def more_boxes(tmp_path_factory, tower) -> Path:
    """Two shapes and a broken one, built with the settings of `built` but another shard size."""
    meshes = tmp_path_factory.mktemp("more_meshes")
    for name in ("Crate", "Chest"):
        write_box(meshes / "wood" / f"{name}.obj")
    (meshes / "wood" / "rotten.obj").write_text("v nan nan nan\n")
    output = tmp_path_factory.mktemp("more") / "wood"
    build(build_arguments(meshes, output, tower, "--shard-size", "1"))
    return output


def test_rows_and_errors_of_both(built, more_boxes, tmp_path, capsys):
    main([str(built), str(more_boxes), "--output", str(tmp_path / "both")])
    assert "8 triplets of 2 datasets" in capsys.readouterr().out
    cache = str(tmp_path / "cache")
    for config in ("triplets", "features"):
        rows = load_dataset(str(tmp_path / "both"), config, split="train", cache_dir=cache)
        parts = [load_dataset(str(part), config, split="train", cache_dir=cache) for part in (built, more_boxes)]
        assert list(rows) == [row for part in parts for row in part]
    assert rows.info.dataset_size == sum(part.info.dataset_size for part in parts)
    assert read_triplets(str(tmp_path / "both")).features == triplet_features(64)
    for name in ("errors.parquet", "warnings.parquet"):
        tables = [pq.read_table(folder / name).to_pylist() for folder in (tmp_path / "both", built, more_boxes)]
        assert [row["id"] for row in tables[0]] == [row["id"] for table in tables[1:] for row in table]
    shards = {entry.shard: entry.record for entry in read_log(tmp_path / "both")}
    errors = pq.read_table(tmp_path / "both" / "errors.parquet").to_pylist()
    assert errors and all(sum(shards[row["shard"]]["errors"].values()) for row in errors)


def test_what_does_not_fit_together(built, more_boxes, tmp_path):
    with pytest.raises(OutputError, match="the id 'boxes/BoxA.obj' is in"):
        merge([built, built], tmp_path / "twice")
    with pytest.raises(OutputError, match="is not empty"):
        merge([built, more_boxes], built)
    with pytest.raises(OutputError, match="build it with `ulip2 build`"):
        merge([built, tmp_path], tmp_path / "new")

    other = shutil.copytree(more_boxes, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["stages"]["RankCaptions"]["fingerprint"] = "another tower"
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="differ in RankCaptions.*another tower"):
        merge([built, other], tmp_path / "new")
    (other / "triplets" / "train-00000-of-00003.parquet").unlink()
    with pytest.raises(OutputError, match="1 of 3 shards of .* are missing"):
        merge([built, other], tmp_path / "new")


def small_build(path: Path, ids: list[str]) -> Path:
    """A dataset of ids alone, a shard for each, as far as a merge looks into it."""
    settings = {"release": "toy", "num_points": 2, "depth": False, "features": False}
    with BuildFolder(path, settings, [{"id": name} for name in ids], 1) as folder:
        for shard, name in enumerate(ids):
            file = shard_path(path, "triplets", shard, len(ids))
            file.parent.mkdir(exist_ok=True)
            write_table(file, [{"id": name}], Features({"id": Value("string")}))
            record = {"triplets": 1, "errors": {"empty": 1}, "bytes": {"triplets": file.stat().st_size}}
            folder.commit(shard, record, [{"id": f"bad {name}", "reason": "empty", "message": ""}])
    return path


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
@pytest.mark.parametrize("links", [True, False])
def test_killed_anywhere_a_merge_leaves_nothing_half_done_and_can_be_completed(tmp_path, monkeypatch, links):
    parts = [small_build(tmp_path / "a", ["1", "2"]), small_build(tmp_path / "b", ["3"])]
    if not links:

        def refuse(*arguments: object) -> None:
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    for number in range(1, 200):
        output = tmp_path / str(number) / "both"
        output.parent.mkdir()
        died = die_at(number, lambda output=output: merge(parts, output))
        if output.exists():
            assert state(output)["card"].count("3 shapes")
        else:
            assert merge(parts, output) == 3
        found = state(output)
        assert [row["id"] for row in found["errors"]] == ["bad 1", "bad 2", "bad 3"]
        assert pq.read_table(output / "triplets")["id"].to_pylist() == ["1", "2", "3"]
        assert sorted(path.name for path in output.parent.iterdir()) == ["both"]
        if not died:
            break
    assert not died and number > 20


def test_a_merge_of_other_datasets_does_not_take_up_what_was_begun(tmp_path):
    a, b, c = (small_build(tmp_path / name, [name]) for name in "abc")
    partial = tmp_path / ".out.part"
    died = die_at(25, lambda: merge([a, b], tmp_path / "out"))
    assert died and partial.is_dir()
    assert merge([a, c], tmp_path / "out") == 2 and not partial.exists()
    assert pq.read_table(tmp_path / "out" / "triplets")["id"].to_pylist() == ["a", "c"]


def test_what_was_merged_can_be_merged(tmp_path):
    a, b, c = (small_build(tmp_path / name, [name]) for name in "abc")
    merge([a, b], tmp_path / "ab")
    assert merge([tmp_path / "ab", c], tmp_path / "abc") == 3
    assert state(tmp_path / "abc")["manifest"]["objects"] == {"count": 3}
