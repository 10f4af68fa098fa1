"""Point clouds with class labels: read from a benchmark or from triplets, divided for k-shot learning, collated."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, load_dataset
from torch.utils.data import Dataset as TorchDataset

from modeling_ulip2.data.augmentation import PointAugmentation, random_sample
from modeling_ulip2.data.collator import CloudCollator
from modeling_ulip2.data.labels import class_names_of, read_labels
from modeling_ulip2.data.reading import CloudRows, on_the_hub, read_split, read_triplets, select_ids
from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor, unit_sphere
from modeling_ulip2.models.point_ops import FPSRule, farthest_point_sample
from modeling_ulip2.utils.private_apis import hub_downloads_in

logger = logging.getLogger(__name__)

LABEL_COLUMN = "label"


class LabeledClouds(TorchDataset):
    """Clouds by index, each with the number of its class.

    Args:
        rows: a dataset with `xyz` (N, 3), perhaps `rgb` (N, 3) and `id`; without ids, rows are named by their number.
        labels: (len(rows),) integers.
        class_names: C names in label order.

    Raises:
        ValueError: a label is not in [0, C), or there is no row.
    """

    def __init__(self, rows: Dataset, labels: Sequence[int] | np.ndarray, class_names: Sequence[str]):
        self.labels = np.asarray(labels, dtype=np.int64)  # (N,)
        self.class_names = list(class_names)
        if len(rows) == 0:
            raise ValueError("there is no labeled cloud")
        if len(self.labels) != len(rows):
            raise ValueError(f"{len(rows)} clouds but {len(self.labels)} labels")
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.class_names)))
        if len(wrong):
            raise ValueError(
                f"{len(wrong)} of {len(rows)} labels do not lie in [0, {len(self.class_names)}), the first in row "
                f"{wrong[0]}: {self.labels[wrong[0]]}"
            )
        self.ids = list(rows["id"]) if "id" in rows.column_names else [str(row) for row in range(len(rows))]
        self._plain = rows
        self._rows = CloudRows(rows)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`id`, `xyz`, perhaps `rgb`, and `label`."""
        return {"id": self.ids[index], **self._rows[index], LABEL_COLUMN: int(self.labels[index])}

    @property
    def counts(self) -> np.ndarray:
        """(C,) clouds of each class."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def select(self, rows: Sequence[int] | np.ndarray) -> LabeledClouds:
        """Some of the clouds, with the same classes."""
        rows = np.asarray(rows, dtype=np.int64)
        return LabeledClouds(self._plain.select(rows), self.labels[rows], self.class_names)

    def with_classes(self, classes: Sequence[int]) -> LabeledClouds:
        """The clouds of some classes, which become the labels 0, 1, ... in the given order."""
        place = {label: new for new, label in enumerate(classes)}
        rows = [row for row, label in enumerate(self.labels.tolist()) if label in place]
        labels = [place[self.labels[row]] for row in rows]
        return LabeledClouds(self._plain.select(rows), labels, [self.class_names[label] for label in classes])


@dataclass(frozen=True)
class LabeledSplit:
    """Clouds to learn from and clouds to measure on, of the same classes."""

    train: LabeledClouds
    test: LabeledClouds

    def __post_init__(self) -> None:
        if len(self.train.class_names) < 2:
            raise ValueError(f"there is one class alone, {self.train.class_names[0]!r}: it takes 2 to classify")
        unseen = np.flatnonzero((self.train.counts == 0) & (self.test.counts > 0))
        if len(unseen):
            names = ", ".join(self.train.class_names[label] for label in unseen)
            raise ValueError(f"nothing can learn these classes, which have test clouds and no training cloud: {names}")
        if self.untested:
            logger.warning(f"classes without a test cloud, which no figure covers: {', '.join(self.untested)}")

    @property
    def untested(self) -> list[str]:
        """Classes that no test cloud belongs to."""
        return [name for name, count in zip(self.test.class_names, self.test.counts, strict=True) if count == 0]

    def with_at_least(self, train_clouds: int) -> LabeledSplit:
        """The split without the classes that have fewer training clouds."""
        kept = np.flatnonzero(self.train.counts >= train_clouds).tolist()
        if len(kept) < 2:
            raise ValueError(f"{len(kept)} classes have {train_clouds} or more training clouds; it takes 2")
        return LabeledSplit(self.train.with_classes(kept), self.test.with_classes(kept))

    def few_shot(self, shots: int, seed: int, ways: int | None = None) -> LabeledSplit:
        """`shots` training clouds of each class, drawn by `seed`, and all test clouds of these classes.

        Args:
            ways: draw so many classes first; None: all.

        Raises:
            ValueError: a class has fewer training clouds, or there are fewer classes.
        """
        rng, split = np.random.default_rng([seed, shots]), self
        if ways is not None:
            if not 2 <= ways <= len(self.train.class_names):
                raise ValueError(f"ways must lie between 2 and the {len(self.train.class_names)} classes, not {ways}")
            classes = sorted(rng.choice(len(self.train.class_names), ways, replace=False).tolist())
            split = LabeledSplit(self.train.with_classes(classes), self.test.with_classes(classes))
        few = np.flatnonzero(split.train.counts < shots)
        if len(few):
            names = ", ".join(f"{split.train.class_names[label]} ({split.train.counts[label]})" for label in few[:10])
            raise ValueError(
                f"{len(few)} classes have fewer than {shots} training clouds: {names}. Leave them out with "
                f"--min_train_clouds {shots}, or ask for fewer shots"
            )
        rows = [
            rng.choice(np.flatnonzero(split.train.labels == label), shots, replace=False)
            for label in range(len(split.train.class_names))
        ]
        return LabeledSplit(split.train.select(np.sort(np.concatenate(rows))), split.test)


def read_labeled_split(
    dataset: str, config: str | None = None, train_split: str = "train", test_split: str = "test", **hub: Any
) -> LabeledSplit:
    """Two splits of a dataset with the columns `xyz`, `label` and perhaps `rgb` and `id`.

    Args:
        dataset: folder of parquet files `[config/]split-*.parquet`, as the benchmark scripts write them, or hub name.
        config: which of its configs, e.g. "PB_T50_RS".
        hub: `revision`, `token` and `cache_dir` of a hub name.
    """
    splits = [_read_split(dataset, config, name, hub) for name in (train_split, test_split)]
    names = _class_names(splits[0], dataset)
    if _class_names(splits[1], dataset) != names:
        raise ValueError(f"{dataset}: {train_split} and {test_split} name other classes")
    numbers = {name: label for label, name in enumerate(names)}
    train, test = (
        LabeledClouds(rows, [numbers.get(label, label) for label in rows[LABEL_COLUMN]], names) for rows in splits
    )
    return LabeledSplit(train, test)


def labeled_triplets(dataset: str, labels_file: str | Path, split_file: str | Path, **hub: Any) -> LabeledSplit:
    """Triplets with the categories of a CSV file (`path`, `category`), divided by `{"train": [ids], "test": [ids]}`.

    The classes are those of the training shapes, in alphabetical order; test shapes of other categories are left out,
    and logged.
    """
    triplets, split = read_triplets(dataset, **hub), read_split(split_file)
    labels = read_labels(labels_file, triplets["id"])
    train = select_ids(triplets, [name for name in split["train"] if name in labels], "labeled training")
    names = class_names_of(labels, train["id"])
    known = [name for name in split["test"] if labels.get(name) in names]
    left_out = sum(name in labels for name in split["test"]) - len(known)
    if left_out:
        logger.warning(f"{left_out} test shapes are left out: their categories have no training shape")
    test = select_ids(triplets, known, "labeled test")
    clouds = [LabeledClouds(rows, [names.index(labels[name]) for name in rows["id"]], names) for rows in (train, test)]
    return LabeledSplit(*clouds)


def _read_split(dataset: str, config: str | None, split: str, hub: Mapping[str, Any]) -> Dataset:
    folder = Path(dataset).expanduser()
    if folder.is_dir():
        place = folder / config if config else folder
        files = sorted(str(path) for path in place.rglob(f"{split}-*.parquet"))
        if not files:
            found = sorted({str(path.relative_to(folder)).rsplit("-", 3)[0] for path in folder.rglob("*.parquet")})
            raise FileNotFoundError(f"{place} holds no {split}-*.parquet; the folder has {', '.join(found) or 'none'}")
        if not config and len({Path(file).parent for file in files}) > 1:
            raise ValueError(
                f"{dataset} has several configs: choose one of {sorted({Path(f).parent.name for f in files})}"
            )
        rows = load_dataset("parquet", data_files={split: files}, split=split)
    else:
        advice = "the scripts of `dataset_scripts/` make labeled folders of the papers' benchmarks"
        with on_the_hub(dataset, advice), hub_downloads_in(hub.get("cache_dir")):
            rows = load_dataset(dataset, config, split=split, **hub)
    missing = {"xyz", LABEL_COLUMN} - set(rows.column_names)
    if missing:
        raise ValueError(f"{dataset}: missing the columns {sorted(missing)}; it has {rows.column_names}")
    return rows


def _class_names(rows: Dataset, dataset: str) -> list[str]:
    feature = rows.features[LABEL_COLUMN]
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    labels = set(rows[LABEL_COLUMN])
    if all(isinstance(label, str) for label in labels):
        return sorted(labels)
    if not all(isinstance(label, int) for label in labels):
        raise ValueError(f"{dataset}: the column {LABEL_COLUMN} must hold integers or names")
    return [str(label) for label in range(max(labels) + 1)]


class ClassificationCollator(CloudCollator):
    """Rows of `LabeledClouds` -> `point_values` (B, N, C) float32 and `labels` (B,) int64.

    Args:
        feature_extractor, augmentation, seed: see `CloudCollator`.
        resampling_pool: in training a pass sees points drawn from so many farthest points, as in the published
            fine-tuning (1,200 for 1,024 points); 0: drawn from all.
    """

    def __init__(
        self,
        feature_extractor: Ulip2FeatureExtractor,
        augmentation: PointAugmentation | None = None,
        seed: int = 0,
        resampling_pool: int = 0,
    ):
        super().__init__(feature_extractor, augmentation, seed)
        if resampling_pool and resampling_pool < feature_extractor.num_points:
            raise ValueError(
                f"resampling_pool ({resampling_pool}) must not be smaller than the {feature_extractor.num_points} "
                "points that are drawn from it"
            )
        self.resampling_pool = resampling_pool

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        labels = torch.tensor([row[LABEL_COLUMN] for row in rows], dtype=torch.int64)
        return {"point_values": self.points(rows), "labels": labels}

    def _draw(self, xyz: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        num_points = self.feature_extractor.num_points
        if len(xyz) < num_points:
            return None
        pool = np.arange(len(xyz))
        if num_points <= self.resampling_pool < len(xyz):
            points = torch.from_numpy(unit_sphere(xyz.astype(np.float64)).astype(np.float32))
            pool = farthest_point_sample(points[None], self.resampling_pool, FPSRule())[0].numpy()
        return random_sample(pool, num_points, rng)
