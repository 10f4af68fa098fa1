import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from build_triplets import main as build
from datasets import load_dataset
from merge_triplets import main, merge

from modeling_ulip2.training.data import read_triplets
from modeling_ulip2.triplets.schema import triplet_features
from modeling_ulip2.triplets.shards import OutputError

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
    shards = json.loads((tmp_path / "both" / "manifest.json").read_text())["shards"]
    errors = pq.read_table(tmp_path / "both" / "errors.parquet").to_pylist()
    assert errors and all(sum(shards[str(row["shard"])]["errors"].values()) for row in errors)


def test_what_does_not_fit_together(built, more_boxes, tmp_path):
    with pytest.raises(OutputError, match="the id 'boxes/BoxA.obj' is in"):
        merge([built, built], tmp_path / "twice")
    with pytest.raises(OutputError, match="is not empty"):
        merge([built, more_boxes], built)
    with pytest.raises(OutputError, match="build it with build_triplets.py"):
        merge([built, tmp_path], tmp_path / "new")

    other = shutil.copytree(more_boxes, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["stages"]["RankCaptions"]["fingerprint"] = "another tower"
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="differ in RankCaptions.*another tower"):
        merge([built, other], tmp_path / "new")
    del manifest["shards"]["0"]
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="1 of 3 shards of .* are missing"):
        merge([built, other], tmp_path / "new")
