"""Fitting a tower's linear map on triplets, and pre-training on the embeddings that it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from modeling_ulip2.data.images import open_view
from modeling_ulip2.data.reading import load_config, read_triplets
from modeling_ulip2.data.schema import features_features
from modeling_ulip2.recipes import linear_lit, pretraining
from modeling_ulip2.towers import load_tower
from modeling_ulip2.towers.linear_map import cross_fitted_maps
from modeling_ulip2.training.features import published_features
from tests.towers.world import save_conse
from tests.training.world import ENCODER, triplet_rows, write_dataset, write_manifest

SHAPES = 16
IDS = [row["id"] for row in triplet_rows(SHAPES)]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
        tower = load_tower(save_conse(folder / "conse"))
        write_dataset(folder / "dataset", shapes=SHAPES)
        rows = []
        for row in read_triplets(str(folder / "dataset")):
            hidden = tower.encode_hidden([open_view(view) for view in row["views"]])
            texts = [tower.encode_text(own).numpy().astype(np.float16) for own in row["captions"]]
            embeds = tower.embed_hidden(hidden).numpy().astype(np.float16)
            hidden = hidden.numpy().astype(np.float16)
            rows.append({"id": row["id"], "image_embeds": embeds, "text_embeds": texts, "image_hidden": hidden})
        schema = features_features(tower.dim, hidden=tower.hidden_dim)
        (folder / "dataset" / "features").mkdir()
        Dataset.from_dict({name: [row[name] for row in rows] for name in schema}, features=schema).to_parquet(
            folder / "dataset" / "features" / "train-00000-of-00001.parquet"
        )
        entries = "".join(f"- config_name: {own}\n  data_files: {own}/*.parquet\n" for own in ("triplets", "features"))
        (folder / "dataset" / "README.md").write_text(f"---\nconfigs:\n{entries}---\n")
        write_manifest(folder / "dataset", tower.fingerprint)
        (folder / "split.json").write_text(json.dumps({"train": IDS[:12], "test": IDS[12:]}))
        (folder / "pairs.csv").write_text(f"a,b\n{IDS[0]},{IDS[1]}\n{IDS[11]},{IDS[12]}\n")
        yield folder


def fit(world: Path, output: Path, **more: object) -> Path:
    options = {
        "dataset": world / "dataset",
        "tower": world / "conse",
        "split_file": world / "split.json",
        "near_duplicates": world / "pairs.csv",
        "folds": 3,
        "output_dir": output,
    } | more
    return linear_lit.main([word for name, value in options.items() for word in (f"--{name}", str(value))])


def test_training_shapes_are_embedded_by_maps_that_never_saw_them(world, tmp_path):
    output = fit(world, tmp_path / "tower", map_share=1.0)
    tower = load_tower(output)
    features = published_features(str(output / linear_lit.EMBEDDINGS), tower)
    assert features is not None and features["id"] == IDS
    rows = linear_lit.read_fit_rows([str(world / "dataset")], load_tower(world / "conse"))
    # shape 11 is a near-duplicate of a test shape
    targets, groups = rows.targets(), [IDS[0], IDS[0], *IDS[2:11]]
    whole, maps, fold_of = cross_fitted_maps(rows.hidden[:11], targets[:11], groups, folds=3)
    assert fold_of[0] == fold_of[1]
    for row in range(SHAPES):
        own = maps[fold_of[row]] if row < 11 else whole
        expected = own(np.float32(rows.hidden[row]))
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(np.float32(features[row]["image_embeds"]), expected, atol=4e-3)
    views = [open_view(view) for view in read_triplets(str(world / "dataset"))[14]["views"]]
    np.testing.assert_allclose(tower.encode_images(views), np.float32(features[14]["image_embeds"]), atol=4e-3)
    card = " ".join((output / "README.md").read_text().split())
    assert "It is no CLIP" in card and "33 renderings of 11 3D objects (dataset)" in card
    assert "5 test shapes and their near-duplicates were left out" in card


def test_captions_count_once_a_shape(world):
    rows = linear_lit.read_fit_rows([str(world / "dataset")], load_tower(world / "conse"))
    different = {text: own for texts, embeds in zip(rows.captions[0], rows.text_embeds[0], strict=True)
                 for text, own in zip(texts, embeds, strict=True)}  # fmt: skip
    assert len(different) == 3
    mean = torch.from_numpy(np.float32(list(different.values()))).mean(0)
    torch.testing.assert_close(torch.from_numpy(rows.targets()[0]), mean / mean.norm(), atol=1e-3, rtol=0)


def test_pretraining_takes_the_embeddings_that_the_fit_leaves(world, tmp_path, caplog):
    output = fit(world, tmp_path / "tower")
    encoder = [word for name, value in ENCODER.items() for word in (f"--{name}", str(value))]
    pretraining.main(
        [
            *("--dataset", str(world / "dataset"), "--tower", str(output), "--split_file", str(world / "split.json")),
            *("--features", str(output / linear_lit.EMBEDDINGS), "--output_dir", str(tmp_path / "model")),
            *("--max_steps", "2", "--per_device_train_batch_size", "4", "--num_points", "64", "--use_cpu", "true"),
            *encoder,
        ]
    )
    assert "using the dataset's own features of tower" in caplog.text
    assert json.loads((tmp_path / "model" / "config.json").read_text())["clip_name_or_path"] == "../tower"


def test_faults_are_named(world, tmp_path):
    (tmp_path / "split.json").write_text(json.dumps({"train": [IDS[11]], "test": [IDS[12]]}))
    with pytest.raises(ValueError, match="not one training shape is left"):
        fit(world, tmp_path / "tower", split_file=tmp_path / "split.json")
    write_dataset(tmp_path / "plain", shapes=4)
    with pytest.raises(ValueError, match=r"plain has no image_hidden of conse: build it with that tower and --hidden"):
        fit(world, tmp_path / "tower", dataset=tmp_path / "plain")
    fit(world, tmp_path / "tower")
    with pytest.raises(ValueError, match="is no ConSE pair"):
        fit(world, tmp_path / "again", tower=tmp_path / "tower")


def test_its_features_load_as_any_dataset(world, tmp_path):
    output = fit(world, tmp_path / "tower")
    assert len(load_config(str(output / linear_lit.EMBEDDINGS), "features")) == SHAPES
