"""Which shapes are kept out of a training: some of every category or of all, near-duplicates always together."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath


def draw_test_ids(
    ids: Sequence[str], labels: Mapping[str, str], seed: int, groups: Mapping[str, str], share: float = 0.2
) -> set[str]:
    """About a share of every category, and of what has none; one of two or more groups gives at least one shape.

    A group of near-duplicates counts for the category of its first member, and goes to one side as a whole. The draw
    depends on `seed` and on which ids there are, not on their order.

    Args:
        labels: category by id; a shape need not have one.
        groups: group by id, of every shape, see `near_duplicate_groups`.
        share: of the shapes that are tested.
    """
    members: dict[str, list[str]] = {}
    for name in sorted(ids):
        members.setdefault(groups[name], []).append(name)
    categories: dict[str, list[list[str]]] = {}
    for own in members.values():
        categories.setdefault(labels.get(own[0], ""), []).append(own)
    rng = random.Random(seed)
    chosen: set[str] = set()
    for _, of_category in sorted(categories.items()):
        rng.shuffle(of_category)
        of_category.sort(key=len)  # large groups are drawn last
        wanted, taken = max(1, round(share * sum(map(len, of_category)))), 0
        for own in of_category[:-1]:
            if taken >= wanted:
                break
            chosen.update(own)
            taken += len(own)
    return chosen


def family(shape_id: str) -> str:
    """What all copies of a shape share: "crops/Lettuce_4.glb" and "crops/Lettuce_5.glb" are "crops/lettuce"."""
    path = PurePosixPath(shape_id)
    words = re.sub(r"[\W\d_]+", " ", path.stem).strip().lower()
    return f"{path.parent}/{words or path.stem}"


def split_families(ids: Iterable[str], share: float, seed: int) -> dict[str, list[str]]:
    """Draws whole families until at least `share` of the shapes are test shapes; both lists are sorted.

    The draw depends on `seed` and on which ids there are, not on their order.

    Raises:
        ValueError: `share` is not between 0 and 1, or nothing is left to train on.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share of the test shapes must lie between 0 and 1, got {share}")
    families: dict[str, list[str]] = {}
    for shape_id in sorted(ids):
        families.setdefault(family(shape_id), []).append(shape_id)
    names = sorted(families)
    random.Random(seed).shuffle(names)
    total = sum(map(len, families.values()))
    test: list[str] = []
    while names and len(test) < share * total:
        test += families[names.pop()]
    if not names:
        raise ValueError(f"{total} shapes of {len(families)} families cannot be divided: nothing is left to train on")
    return {"train": sorted(shape for name in names for shape in families[name]), "test": sorted(test)}
