from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from datasets import Array2D, ClassLabel, Dataset, Features, Value

from modeling_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.data.labeled import (
    ClassificationCollator,
    LabeledClouds,
    LabeledSplit,
    labeled_triplets,
    read_labeled_split,
)
from tests.training.world import write_dataset

NAMES = ["bag", "bin", "box"]
STILL = PointAugmentation(0, 1, 1, shift=0, angle_sigma=0, rotate_y=False)


def clouds(labels: list[int], points: int = 30, color: str | None = "uint8", first: int = 0) -> Dataset:
    rng = np.random.default_rng(first)
    columns = {"id": Value("string"), "xyz": Array2D((points, 3), "float32"), "label": ClassLabel(names=NAMES)}
    rows = [
        {"id": f"{first + row}", "xyz": rng.random((points, 3), dtype=np.float32), "label": label}
        for row, label in enumerate(labels)
    ]
    if color is not None:
        columns["rgb"] = Array2D((points, 3), color)
        for row in rows:
            rgb = rng.random((points, 3))
            row["rgb"] = (rgb * 255).astype(np.uint8) if color == "uint8" else rgb.astype(color)
    return Dataset.from_list(rows, features=Features(columns))


def labeled(labels: list[int], **settings) -> LabeledClouds:
    return LabeledClouds(clouds(labels, **settings), labels, NAMES)


def write_benchmark(folder: Path, train: list[int], test: list[int], config: str = "PB_T50_RS", **settings) -> Path:
    """A folder as the benchmark scripts leave it."""
    (folder / config).mkdir(parents=True)
    clouds(train, **settings).to_parquet(folder / config / "train-00000-of-00001.parquet")
    clouds(test, first=100, **settings).to_parquet(folder / config / "test-00000-of-00001.parquet")
    return folder


def test_a_benchmark_is_read_with_its_names_and_order(tmp_path):
    write_benchmark(tmp_path, [2, 0, 1], [1, 2])
    split = read_labeled_split(str(tmp_path), "PB_T50_RS")
    assert split.train.class_names == NAMES and split.train.labels.tolist() == [2, 0, 1]
    assert split.test.ids == ["100", "101"] and split.untested == ["bag"]
    row = split.train[0]
    assert row["label"] == 2 and row["xyz"].shape == (30, 3) and row["rgb"].dtype == np.uint8
    assert read_labeled_split(str(tmp_path)).train.labels.tolist() == [2, 0, 1], "the only config needs no name"


def test_what_a_folder_lacks_is_told(tmp_path):
    write_benchmark(tmp_path, [0, 1], [1])
    with pytest.raises(FileNotFoundError, match="holds no val-.*the folder has PB_T50_RS/test, PB_T50_RS/train"):
        read_labeled_split(str(tmp_path), "PB_T50_RS", test_split="val")
    write_benchmark(tmp_path, [0, 1], [1], config="OBJ_BG")
    with pytest.raises(ValueError, match=r"several configs: choose one of \['OBJ_BG', 'PB_T50_RS'\]"):
        read_labeled_split(str(tmp_path))
    Dataset.from_dict({"xyz": [[[0.0] * 3]]}).to_parquet(tmp_path / "bare" / "train-0-of-1.parquet")
    with pytest.raises(ValueError, match=r"missing the columns \['label'\]"):
        read_labeled_split(str(tmp_path), "bare")


def test_labels_out_of_range_are_told_with_their_row():
    with pytest.raises(ValueError, match=r"1 of 3 labels do not lie in \[0, 3\), the first in row 1: 7"):
        LabeledClouds(clouds([0, 1, 2]), [0, 7, 2], NAMES)


def test_a_class_that_only_the_test_has_is_refused():
    with pytest.raises(ValueError, match="no training cloud: box"):
        LabeledSplit(labeled([0, 1]), labeled([0, 2]))


def test_few_shots_are_drawn_by_seed():
    split = LabeledSplit(labeled([0, 0, 0, 1, 1, 1, 1, 2, 2, 2]), labeled([0, 1, 2, 2], first=50))
    few = split.few_shot(2, seed=1)
    assert few.train.counts.tolist() == [2, 2, 2] and len(few.test) == 4
    assert few.train.ids == split.few_shot(2, seed=1).train.ids
    assert len({tuple(split.few_shot(2, seed=seed).train.ids) for seed in range(8)}) > 1
    for seed in range(6):
        two = split.few_shot(3, seed=seed, ways=2)
        assert two.train.counts.tolist() == [3, 3] and two.train.class_names == two.test.class_names
        # the labels are renumbered, the clouds stay what they were
        for own in (two.train, two.test):
            for name, label in zip(own.ids, own.labels, strict=True):
                source = split.train if name in split.train.ids else split.test
                assert source.class_names[source.labels[source.ids.index(name)]] == own.class_names[label]


def test_too_few_examples_are_told_by_class():
    split = LabeledSplit(labeled([0, 0, 0, 1, 2, 2]), labeled([0, 1, 2], first=50))
    with pytest.raises(ValueError, match=r"2 classes have fewer than 3 training clouds: bin \(1\), box \(2\)"):
        split.few_shot(3, seed=0)
    with pytest.raises(ValueError, match="between 2 and the 3 classes, not 5"):
        split.few_shot(1, seed=0, ways=5)
    assert split.with_at_least(2).test.class_names == ["bag", "box"]
    with pytest.raises(ValueError, match="1 classes have 3 or more"):
        split.with_at_least(3)


def test_triplets_take_their_categories_from_a_file(tmp_path, caplog):
    folder = write_dataset(tmp_path / "triplets", shapes=6)
    ids = [f"made/{index:02d}.obj" for index in range(6)]
    lines = [f"{name},{category}" for name, category in zip(ids, ["b", "a", "b", "", "a", "c"], strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,category", *lines]))
    (tmp_path / "split.json").write_text(json.dumps({"train": ids[:3], "test": ids[3:]}))
    with caplog.at_level(logging.WARNING):
        split = labeled_triplets(str(folder), tmp_path / "labels.csv", tmp_path / "split.json")
    assert split.train.class_names == ["a", "b"] and split.train.labels.tolist() == [1, 0, 1]
    assert split.test.ids == [ids[4]] and split.test.labels.tolist() == [0] and split.untested == ["b"]
    assert "1 test shapes are left out" in caplog.text


def test_training_sees_other_points_in_every_pass_and_evaluation_the_same():
    rows = [labeled([0, 2])[index] for index in range(2)]
    collator = ClassificationCollator(Ulip2FeatureExtractor(num_points=16), STILL, seed=3)
    first = collator(rows)
    assert first["point_values"].shape == (2, 16, 6) and first["labels"].tolist() == [0, 2]
    assert collator(rows)["point_values"].equal(first["point_values"])
    collator.set_epoch(1)
    assert not collator(rows)["point_values"].equal(first["point_values"])
    still = collator.for_evaluation()
    expected = collator.feature_extractor([{"xyz": row["xyz"], "rgb": row["rgb"]} for row in rows])["point_values"]
    assert still(rows)["point_values"].equal(expected)


def test_points_are_drawn_from_the_farthest_ones():
    """A dense cluster and a few points around it: a pool of the farthest points leaves most of the cluster out."""
    rng = np.random.default_rng(0)
    xyz = np.concatenate([rng.normal(0, 0.001, (80, 3)), rng.normal(0, 1, (20, 3))]).astype(np.float32)
    row = {"id": "a", "xyz": xyz, "label": 0}

    def spread(pool: int) -> int:
        extractor = Ulip2FeatureExtractor(num_points=18, in_channels=3, normalize=False)
        values = ClassificationCollator(extractor, STILL, 0, pool)([row])["point_values"][0]
        return int((values.norm(dim=1) > 0.01).sum())

    assert spread(22) >= 15 > 8 > spread(0)
    with pytest.raises(ValueError, match=r"resampling_pool \(10\) must not be smaller than the 18"):
        ClassificationCollator(Ulip2FeatureExtractor(num_points=18), STILL, 0, 10)


@pytest.mark.parametrize("color", ["uint8", "float16", None])
def test_colors_of_every_kind_arrive(color):
    clouds = labeled([0], color=color)
    collator = ClassificationCollator(Ulip2FeatureExtractor(num_points=30), STILL)
    colors = collator([clouds[0]])["point_values"][0, :, 3:].numpy()
    if color is None:
        assert (colors == np.float32(0.4)).all()
    else:
        own = clouds[0]["rgb"] / (255 if color == "uint8" else 1)
        np.testing.assert_allclose(np.sort(colors.ravel()), np.sort(own.ravel().astype(np.float32)), atol=1e-6)
