"""Groups of what belongs together by way of others, grown pair by pair."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class DisjointSets(Generic[Item]):
    """Every item is alone until it is joined with another."""

    def __init__(self) -> None:
        self._above: dict[Item, Item] = {}

    def root(self, item: Item) -> Item:
        """The member that stands for the item's group until the group is joined with another."""
        while self._above.setdefault(item, item) != item:
            self._above[item] = self._above[self._above[item]]
            item = self._above[item]
        return item

    def join(self, one: Item, other: Item) -> None:
        """Makes the groups of two items one, for which the root of `other` stands."""
        self._above[self.root(one)] = self.root(other)
