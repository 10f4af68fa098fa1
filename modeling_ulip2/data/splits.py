"""Which shapes are kept out of a training: some of every category, near-duplicates always together."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence


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
