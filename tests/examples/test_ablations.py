"""The ablations, run for real on a small world: tables, plots, and a second call that trains nothing anew."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from examples import ablations
from modeling_ulip2.data.reading import TripletDataset, load_config, read_triplets
from modeling_ulip2.recipes import pretraining
from modeling_ulip2.towers import load_tower
from tests.evaluation.world import CATEGORIES
from tests.training.world import ENCODER, add_features, triplet_rows, write_dataset, write_tower


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ablations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
        write_tower(folder / "tower")
        write_dataset(folder / "dataset", shapes=12)
        add_features(folder / "dataset", load_tower(folder / "tower"), folder / "made")
        ids = [row["id"] for row in triplet_rows(12)]
        (folder / "split.json").write_text(json.dumps({"train": ids[:8], "test": ids[8:]}))
        with open(folder / "labels.csv", "w", newline="") as file:
            rows = [[name, CATEGORIES[index % 3]] for index, name in enumerate(ids)]
            csv.writer(file).writerows([["path", "category"], *rows])
        yield folder


def arguments(world: Path, output: Path, *more: str) -> list[str]:
    options = {"dataset": "dataset", "tower": "tower", "split_file": "split.json", "labels_file": "labels.csv"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(world / value))]
    words += [word for name, value in ENCODER.items() for word in (f"--{name}", str(value))]
    words += ["--num_points", "64", "--max_steps", "2", "--per_device_train_batch_size", "4", "--use_cpu", "true"]
    return [*words, "--feature_cache", str(world / "cache"), "--output_dir", str(output), *more]


def test_views_and_losses_over_two_seeds(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    real = pretraining.main
    monkeypatch.setattr(pretraining, "main", lambda argv: (ran.append(argv), real(argv)))
    command = arguments(world, tmp_path, "--only", "losses", "--seeds", "0", "1")
    report = ablations.main(command)
    assert len(ran) == 6
    text = report.read_text()
    assert "| image alone | 2 |" in text and "±" in text and (tmp_path / "losses.png").stat().st_size > 1000
    measured = json.loads((tmp_path / "losses.json").read_text())
    assert list(measured) == ["image alone", "text alone", "both"]
    config = json.loads((tmp_path / "runs" / "text_loss_weight_0" / "seed_1" / "config.json").read_text())
    assert config["text_loss_weight"] == 0
    ablations.main(command)
    assert len(ran) == 6  # all were there


def test_what_ablations_share_is_trained_once() -> None:
    shared = ["--dataset", "a", "--top_k", "1", "--num_views=12", "--caption_sources", "recorded", "--top_k", "3"]
    name = partial(ablations.run_name, shared)
    assert (
        name([]) == name(["--top_k", "3"]) == name(["--num_views", "12", "--caption_sources", "recorded"]) == "shared"
    )
    assert name(["--top_k", "1"]) == "top_k_1"
    assert name(["--caption_sources", "recorded", "labels"]) == "caption_sources_recorded_labels"
    assert name(["--num_hidden_layers", "2", "--hidden_size", "96"]) == "hidden_size_96-num_hidden_layers_2"


def test_captions_need_a_dataset_that_tells_captioners_apart(world: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="build it with --caption-sources"):
        ablations.main(arguments(world, tmp_path, "--only", "captions"))
    settings = {"captioners": ["recorded", "labels"], "caption_sources": True}
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"format": 3, "settings": settings}))
    assert ablations.captioners(str(folder)) == ["recorded", "labels"]


def test_another_encoder_goes_without_the_sizes_of_point_bert() -> None:
    kept = ["--top_k", "3", "--point_encoder", "ulip2_pointnext"]
    words = ["--hidden_size", "16", *kept[:2], "--group_size=8", *kept[2:]]
    assert ablations.without(words, ablations.ENCODER_OPTIONS) == kept


def test_a_table_has_mean_and_spread() -> None:
    runs = {"a": [{"eval_zero_shot_top1": 0.2}, {"eval_zero_shot_top1": 0.4}], "b": [{"eval_zero_shot_top1": 0.5}] * 2}
    lines = ablations.table(runs)
    assert "30.0 ± 14.1" in lines[2] and "50.0 ± 0.0" in lines[3]


def test_a_training_may_see_some_of_the_views(world: Path) -> None:
    triplets = read_triplets(str(world / "dataset"))
    features = load_config(str(world / "dataset"), "features")
    whole = TripletDataset(triplets, features)[0]
    for count, kept in ((1, [0]), (2, [0, 1]), (5, [0, 1, 2])):
        row = TripletDataset(triplets, features, num_views=count)[0]
        assert len(row["image_embeds"]) == len(row["text_embeds"]) == len(kept)
        for place, view in enumerate(kept):
            np.testing.assert_array_equal(row["image_embeds"][place], whole["image_embeds"][view])
            np.testing.assert_array_equal(row["text_embeds"][place], whole["text_embeds"][view])
    assert len(TripletDataset(triplets, num_views=1)[0]["captions"]) == 1
    with pytest.raises(ValueError, match="num_views must be at least 1"):
        TripletDataset(triplets, num_views=0)
