"""Categories of shapes, from a table."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def read_labels(path: str | Path, ids: Iterable[str] | None = None) -> dict[str, str]:
    """Category by id from a CSV file with the columns `path` (a triplet's id) and `category`; blank ones are left out.

    Args:
        ids: those of the dataset that the labels are for; None: not compared.

    Raises:
        ValueError: a column is missing, no row has a category, or none is about one of `ids`.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = {"path", "category"} - set(reader.fieldnames or [])
        if missing:
            raise ValueError(f"{path}: missing the columns {sorted(missing)}; it has {reader.fieldnames}")
        labels = {row["path"]: row["category"].strip() for row in reader if (row["category"] or "").strip()}
    if not labels:
        raise ValueError(f"{path}: no row has a category")
    if ids is not None:
        check_label_ids(labels, ids, path)
    return labels


def check_label_ids(labels: Mapping[str, str], ids: Iterable[str], path: str | Path) -> None:
    """Refuses labels of other shapes than `ids`.

    Raises:
        ValueError: none of the labels, which were read from `path`, is about one of `ids`.
    """
    own = list(ids)
    if own and labels.keys().isdisjoint(own):
        raise ValueError(
            f"{path} labels other shapes: none of its {len(labels)} ids is in the dataset ({next(iter(labels))!r} "
            f"there, {own[0]!r} here)"
        )


def class_names_of(labels: Mapping[str, str], ids: Sequence[str] | None = None) -> list[str]:
    """The categories of `ids` (of all labels when None) in alphabetical order."""
    return sorted({labels[name] for name in (labels if ids is None else ids) if name in labels})
