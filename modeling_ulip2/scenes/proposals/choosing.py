"""Which branches of the tree of segments are proposed as objects."""

from __future__ import annotations

import numpy as np

from .merging import LEAST_COST, SMALL, Tree

# Of two branches, one of which makes up more than this share of the other, one is proposed.
SAME = 0.8
# What is never merged would have cost so much.
NEVER = 4.0
# Scores are this power of what they are made of: their order chooses proposals, but beside the probability of a name
# they tell little, since what leans on other things is as likely an object as what stands alone. Chosen on the first
# two homes of Sweet Home 3D as seen by a walk, as was `naming.CENTERED`.
FLAT = 0.1


class Branches:
    """The nodes of a tree with their points on the grid.

    Args:
        tree: over segments 0 to S - 1.
        segments: (V,) int32, the segment of each point on the grid; -1 for none.
        xyz: (V, 3).
    """

    def __init__(self, tree: Tree, segments: np.ndarray, xyz: np.ndarray) -> None:
        self.tree = tree
        inside = np.flatnonzero(segments >= 0)
        order, self._firsts, self._lasts = tree.leaves()
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        of_inside = place[segments[inside]]
        self._cells = inside[np.argsort(of_inside, kind="stable")]
        self._begins = np.concatenate([[0], np.cumsum(np.bincount(of_inside, minlength=len(order)))])
        self.sizes = self._begins[self._lasts] - self._begins[self._firsts]  # (S + M,) points
        self.extents = self._find_extents(xyz)  # (S + M, 3)

    def cells(self, node: int) -> np.ndarray:
        """The points on the grid of a node."""
        return self._cells[self._begins[self._firsts[node]] : self._begins[self._lasts[node]]]

    def _find_extents(self, xyz: np.ndarray) -> np.ndarray:
        number = len(self.tree.costs) - len(self.tree.children)
        low, high = np.zeros((len(self.tree.costs), 3)), np.zeros((len(self.tree.costs), 3))
        for segment in range(number):
            points = xyz[self.cells(segment)]
            low[segment], high[segment] = points.min(axis=0), points.max(axis=0)
        for m, (a, b) in enumerate(self.tree.children):
            low[number + m] = np.minimum(low[a], low[b])
            high[number + m] = np.maximum(high[a], high[b])
        return high - low

    def scores(self) -> np.ndarray:
        """(S + M,) how much more it costs to merge each node with the next than to make it, less so for small ones.

        Between 0 and 1, to the power `FLAT`.
        """
        tree = self.tree
        dies = np.where(tree.parents >= 0, tree.costs[tree.parents], np.maximum(NEVER, tree.costs))
        lives = (dies - np.maximum(tree.costs, LEAST_COST)) / NEVER
        return (lives * np.sqrt(tree.areas / (tree.areas + SMALL))).clip(0, 1) ** FLAT

    def choose(self, smallest_object: float, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The nodes (P,) that are proposed, best first, their scores (P,) and the nearest proposal above each (P,).

        Args:
            smallest_object: meters, the least longest side.
            most: how many.
        """
        scores = self.scores()
        fit = np.flatnonzero(self.extents.max(axis=1, initial=0) >= smallest_object)
        blocked = np.zeros(len(scores), dtype=bool)
        kept: list[int] = []
        for node in fit[np.argsort(-scores[fit], kind="stable")].tolist():
            if blocked[node]:
                continue
            kept.append(node)
            if len(kept) == most:
                break
            self._block(node, blocked)
        chosen = np.array(kept, dtype=np.int64)
        number = {node: position for position, node in enumerate(kept)}
        parents = np.full(len(kept), -1, dtype=np.int32)
        for position, node in enumerate(kept):
            above = int(self.tree.parents[node])
            while above >= 0 and above not in number:
                above = int(self.tree.parents[above])
            parents[position] = number.get(above, -1)
        return chosen, scores[chosen].astype(np.float32), parents

    def _block(self, node: int, blocked: np.ndarray) -> None:
        """Marks what is nearly the same as a node, above and below it."""
        size, tree = self.sizes[node], self.tree
        number = len(tree.costs) - len(tree.children)
        above = tree.parents[node]
        while above >= 0 and size > SAME * self.sizes[above]:
            blocked[above] = True
            above = tree.parents[above]
        below = node
        while below >= number:
            a, b = tree.children[below - number]
            below = a if self.sizes[a] >= self.sizes[b] else b
            if self.sizes[below] <= SAME * size:
                break
            blocked[below] = True
