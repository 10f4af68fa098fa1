from __future__ import annotations

import numpy as np
import pytest

from modeling_ulip2.scenes import ObjectMasks
from modeling_ulip2.scenes.overlaps import mask_ious, mask_sizes, shared_points


def random_masks(count: int, points: int, rng: np.random.Generator) -> tuple[ObjectMasks, np.ndarray]:
    tables = rng.random((count, points)) < rng.random((count, 1)) * 0.2
    return ObjectMasks([np.flatnonzero(own).astype(np.int32) for own in tables]), tables


def test_sparse_counts_are_those_of_dense_tables():
    rng = np.random.default_rng(0)
    (masks, dense), (others, more) = random_masks(40, 300, rng), random_masks(7, 350, rng)
    dense = np.pad(dense, ((0, 0), (0, 50))).astype(int)
    shared = dense @ more.T.astype(int)
    np.testing.assert_array_equal(shared_points(masks, others).toarray(), shared)
    union = dense.sum(axis=1)[:, None] + more.sum(axis=1)[None] - shared
    np.testing.assert_allclose(mask_ious(masks, others).toarray(), shared / np.maximum(union, 1))
    np.testing.assert_array_equal(mask_sizes(masks), dense.sum(axis=1))
    np.testing.assert_allclose(mask_ious(masks, masks).diagonal(), mask_sizes(masks) > 0)


def test_no_mask_and_empty_masks():
    empty, one = ObjectMasks([]), ObjectMasks([np.array([3, 4], np.int32), np.empty(0, np.int32)])
    assert mask_ious(empty, one).shape == (0, 2) and mask_ious(one, empty).shape == (2, 0)
    assert mask_ious(one, one).toarray().tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("bad", [[2, 2], [3, 1], [-1, 4]])
def test_points_out_of_order_are_refused(bad):
    with pytest.raises(ValueError, match="ascending|negative"):
        shared_points(ObjectMasks([np.array(bad, np.int32)]), ObjectMasks([np.array([0], np.int32)]))
