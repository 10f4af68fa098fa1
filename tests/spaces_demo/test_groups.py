from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")

from rooms.groups import MAX_GROUPS, clusters, folders, largest  # noqa: E402


def test_clusters_that_are_there_are_found():
    rng = np.random.default_rng(0)
    middles = np.eye(16)[:3]
    sizes = [5, 20, 10]
    rows = np.concatenate([middle + 0.05 * rng.normal(size=(n, 16)) for middle, n in zip(middles, sizes, strict=True)])
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    places, chosen = clusters(rows, 3)
    assert [set(places[start:end]) for start, end in ((0, 5), (5, 25), (25, 35))] == [{2}, {0}, {1}]  # by size
    assert [places[row] for row in chosen] == [0, 1, 2]
    for place, row in enumerate(chosen):
        middle = rows[places == place].mean(axis=0)
        assert rows[row] @ middle == pytest.approx((rows[places == place] @ middle).max(), abs=1e-4)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fewer_shapes_than_clusters(count: int):
    rows = np.eye(8, dtype=np.float32)[:count]
    places, chosen = clusters(rows, 12)
    assert sorted(chosen) == list(range(count)) and sorted(places) == list(range(count))
    places, chosen = clusters(np.repeat(rows[:1], 3, axis=0), 2)  # copies are one
    assert set(places) == {0} and len(chosen) == 1


def test_folders_of_ids():
    assert folders(["a/x/1.obj", "a/y/2.obj", "a/y/3.obj"]) == ["x", "y", "y"]
    assert folders(["a\\1.obj", "b\\2.obj", "b\\3.obj"]) == ["a", "b", "b"]
    assert folders(["a/1.obj", "a/2.obj"]) is None  # one folder tells nothing
    assert folders(["a/1.obj", "b/2.obj"]) is None  # nor does one for each
    assert folders(["1.obj", "a/2.obj"]) is None
    assert folders([]) is None


def test_a_legend_names_the_largest():
    kinds = [f"kind {number}" for number in range(12) for _ in range(12 - number)]
    assert largest(kinds) == [*(f"kind {number}" for number in range(MAX_GROUPS)), "other"]
    assert largest(["a", "b", "b"]) == ["b", "a"]
    assert largest(["a", ""]) == ["a", "other"]
