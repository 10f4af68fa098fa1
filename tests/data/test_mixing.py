from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from modeling_ulip2.data.mixing import StreamMixture, TripletMixture, TripletSampler, dataset_shares
from modeling_ulip2.data.reading import TripletDataset, read_triplets
from modeling_ulip2.data.stream import TripletStream


def passes(sampler: TripletSampler, count: int) -> list[list[int]]:
    found = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        found.append(list(sampler))
    return found


def test_one_dataset_is_shuffled_otherwise_in_each_pass_and_the_same_again():
    sampler = TripletSampler([23], 5, seed=1)
    first, second = passes(sampler, 2)
    assert len(sampler) == len(first) == 20 and len(set(first)) == 20 and first != second
    assert passes(TripletSampler([23], 5, seed=1), 2) == [first, second]
    assert passes(TripletSampler([23], 5, seed=2), 1) != [first]
    seen = Counter(row for own in passes(sampler, 12) for row in own)
    assert set(seen) == set(range(23)), "what does not fill a batch is another part in each pass"


def test_datasets_are_mixed_by_weight_and_each_goes_through_all_its_rows():
    sampler = TripletSampler([60, 20], 8, weights=[1, 3])
    assert sampler.shares.tolist() == [20, 60]
    rows = [row for own in passes(sampler, 3) for row in own]
    counts = Counter(rows)
    assert sum(counts[row] for row in range(60)) == 60 and set(counts[row] for row in range(60)) == {1}
    assert {counts[row] for row in range(60, 80)} == {9}
    # mixed well: no batch is of one dataset alone
    first = np.array(passes(sampler, 1)[0]).reshape(-1, 8)
    assert ((first < 60).sum(axis=1) > 0).mean() > 0.7


@pytest.mark.parametrize(
    ("sizes", "weights", "expected"),
    [([5, 5], None, [5, 5]), ([10, 1], [1, 1], [6, 5]), ([3, 3, 3], [1, 1, 2], [2, 2, 5]), ([7], [0.5], [7])],
)
def test_shares_sum_to_a_pass(sizes, weights, expected):
    found = dataset_shares(sizes, weights)
    assert found.sum() == sum(sizes) and sorted(found) == sorted(expected)


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, 0], [1, -1], [1, float("nan")]])
def test_bad_weights_are_refused(weights):
    with pytest.raises(ValueError, match="2 datasets need as many positive weights"):
        TripletSampler([10, 10], 4, weights)


def test_no_batch_holds_two_of_a_group():
    rng = np.random.default_rng(0)
    groups = np.concatenate([np.zeros(30, int), rng.integers(1, 12, size=90)])  # one large family
    sampler = TripletSampler([120], 10, groups=groups)
    for own in passes(sampler, 5):
        batches = np.array(own).reshape(-1, 10)
        assert batches.shape == (12, 10)
        assert all(len(set(groups[batch])) == 10 for batch in batches)
    seen = Counter(row for own in passes(sampler, 40) for row in own)
    assert len(seen) == 120, "who finds no place in a pass finds one in another"


def test_a_small_dataset_drawn_often_is_not_twice_in_a_batch():
    groups = np.arange(24)
    plain = TripletSampler([20, 4], 6, weights=[1, 1])
    apart = TripletSampler([20, 4], 6, weights=[1, 1], groups=groups)
    repeats = [
        sum(6 - len(set(batch)) for own in passes(sampler, 6) for batch in np.array(own).reshape(-1, 6).tolist())
        for sampler in (plain, apart)
    ]
    assert repeats[0] > 0 and repeats[1] == 0


def test_impossible_batches_are_refused():
    with pytest.raises(ValueError, match="9 rows do not fill one batch of 10"):
        TripletSampler([9], 10)
    with pytest.raises(ValueError, match="batch of 4 without near-duplicates cannot be made of 3 groups"):
        TripletSampler([9], 4, groups=np.arange(9) % 3)
    with pytest.raises(ValueError, match="9 rows need as many group numbers, not 3"):
        TripletSampler([9], 4, groups=np.arange(3))


def test_a_mixture_counts_its_datasets_through(dataset, dataset_with_features):
    datasets = [TripletDataset(read_triplets(str(own))) for own in (dataset, dataset_with_features)]
    mixture = TripletMixture(datasets, weights=[3, 1])
    assert len(mixture) == 32 and mixture[17]["id"] == datasets[1].ids[1]
    assert mixture.origin.licenses == {"CC0": 32}
    own = list(mixture.sampler(8, seed=0))
    assert len(own) == 32 and sum(row >= 16 for row in own) == 8
    with pytest.raises(ValueError, match="2 datasets need as many"):
        TripletMixture(datasets, weights=[1])


def test_streams_are_mixed_by_weight_and_the_same_again(dataset, dataset_with_features):
    def mixture(process_index: int = 0) -> StreamMixture:
        streams = [TripletStream(read_triplets(str(own), streaming=True)) for own in (dataset, dataset_with_features)]
        return StreamMixture(streams, [1, 3], seed=5, process_index=process_index)

    def drawn(own: StreamMixture) -> list[tuple[bool, str, int]]:
        rows = iter(own)
        return [(("depths" in row), row["id"], row["epoch"]) for row in (next(rows) for _ in range(120))]

    first = drawn(mixture())
    assert first == drawn(mixture()) != drawn(mixture(1))
    share = np.mean([deep for deep, *_ in first])  # only the first dataset has depth views
    assert 0.12 < share < 0.38
    assert max(epoch for *_, epoch in first) >= 4, "the streams go on without end"
