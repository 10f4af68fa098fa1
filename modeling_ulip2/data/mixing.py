"""Several datasets in one training, and batches in which no two shapes look alike."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import ConcatDataset, Sampler, get_worker_info
from torch.utils.data import IterableDataset as TorchIterableDataset

from modeling_ulip2.data.origin import DataOrigin
from modeling_ulip2.data.reading import TripletDataset
from modeling_ulip2.data.schema import Row
from modeling_ulip2.data.stream import TripletStream


def dataset_shares(sizes: Sequence[int], weights: Sequence[float] | None) -> np.ndarray:
    """Rows of each dataset in a pass of sum(sizes) rows, (n,): by weight, or all of each without weights.

    Raises:
        ValueError: not one positive weight for each dataset.
    """
    if weights is None:
        return np.array(sizes, dtype=np.int64)
    if len(weights) != len(sizes) or not all(np.isfinite(own) and own > 0 for own in weights):
        raise ValueError(f"{len(sizes)} datasets need as many positive weights, not {list(weights)}")
    exact = np.array(weights, dtype=np.float64) / sum(weights) * sum(sizes)
    shares = np.floor(exact).astype(np.int64)
    for index in np.argsort(shares - exact, kind="stable")[: sum(sizes) - shares.sum()]:  # the largest rests
        shares[index] += 1
    return shares


def joined_origin(origins: Sequence[DataOrigin]) -> DataOrigin:
    """The origin of the rows of several datasets; licenses are told if all of them tell theirs."""
    licenses: Counter[str] = Counter()
    for own in origins:
        licenses.update(own.licenses)
    names = [name for own in origins for name in own.datasets]
    return DataOrigin(list(dict.fromkeys(names)), dict(licenses) if all(own.licenses for own in origins) else {})


class TripletSampler(Sampler[int]):
    """Rows of one or several datasets, counted through, in an order of whole batches.

    A pass has as many rows as all datasets together, less those that do not fill a batch. Of each dataset it holds
    the share that its weight gives; a dataset goes through all its rows before one comes again, over several passes
    where its share is smaller. The order depends on `seed` and the pass alone, not on the number of processes.

    Args:
        sizes: rows of each dataset.
        batch_size: of a step, on all processes.
        weights: of the datasets, any positive numbers; None: each gives all its rows.
        groups: (sum(sizes),) numbers: a batch holds no two rows of one group. Rows that find
            no place in a pass are left out of it; where that leaves room, other rows come twice.
        seed: of all draws.

    Raises:
        ValueError: there are fewer rows, or fewer groups, than a batch needs.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        weights: Sequence[float] | None = None,
        groups: np.ndarray | None = None,
        seed: int = 0,
    ):
        self.sizes, self.batch_size, self.groups, self.seed, self.epoch = list(sizes), batch_size, groups, seed, 0
        self.shares = dataset_shares(sizes, weights)
        self._batches = sum(sizes) // batch_size
        if not self._batches:
            raise ValueError(f"{sum(sizes)} rows do not fill one batch of {batch_size}")
        if groups is not None and len(groups) != sum(sizes):
            raise ValueError(f"{sum(sizes)} rows need as many group numbers, not {len(groups)}")
        if groups is not None and (count := len(np.unique(groups))) < batch_size:
            raise ValueError(
                f"a batch of {batch_size} without near-duplicates cannot be made of {count} groups of them: lower "
                "the batch size, or let near-duplicates into a batch"
            )

    def __len__(self) -> int:
        return self._batches * self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Tells which pass follows."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = self._order(rng)
        if self.groups is not None:
            order = self._parted(order, self.groups, rng)
        return iter(order[: len(self)].tolist())

    def _order(self, rng: np.random.Generator) -> np.ndarray:
        """(sum(sizes),) rows of this pass, shuffled."""
        firsts = np.cumsum([0, *self.sizes[:-1]])
        rows = [first + self._rows_of(number) for number, first in enumerate(firsts)]
        return rng.permutation(np.concatenate(rows))

    def _rows_of(self, number: int) -> np.ndarray:
        """The rows that a dataset gives to this pass."""
        size, share = self.sizes[number], int(self.shares[number])
        places = np.arange(self.epoch * share, (self.epoch + 1) * share)
        rounds = places // max(size, 1)
        orders = {
            own: np.random.default_rng([self.seed, number, own]).permutation(size) for own in set(rounds.tolist())
        }
        return np.array([orders[own][place % size] for own, place in zip(rounds.tolist(), places, strict=True)], int)

    def _parted(self, order: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The same rows such that each batch has distinct groups; a row whose group is taken waits for the next."""
        coming, waiting, parted = deque(order.tolist()), deque[int](), list[int]()
        for _ in range(self._batches):
            taken: set[int] = set()
            batch: list[int] = []
            again: deque[int] = deque()
            while len(batch) < self.batch_size and (waiting or coming):
                row = (waiting or coming).popleft()
                if groups[row] in taken:
                    again.append(row)
                else:
                    taken.add(groups[row])
                    batch.append(row)
            waiting = again + waiting
            if len(batch) < self.batch_size:  # near the end of the pass only relatives of each other may be left
                for row in rng.permutation(sum(self.sizes)).tolist():
                    if groups[row] not in taken:
                        taken.add(groups[row])
                        batch.append(row)
                        if len(batch) == self.batch_size:
                            break
            parted += batch
        return np.array(parted)


class TripletMixture(ConcatDataset):
    """Several `TripletDataset`s, counted through.

    Args:
        datasets: at least one.
        weights: see `TripletSampler`.
        groups: see `TripletSampler`.
    """

    def __init__(
        self,
        datasets: Sequence[TripletDataset],
        weights: Sequence[float] | None = None,
        groups: np.ndarray | None = None,
    ):
        super().__init__(datasets)
        self.sizes = [len(own) for own in datasets]
        self.weights, self.groups = weights, groups
        self.origin = joined_origin([own.origin for own in datasets])
        dataset_shares(self.sizes, weights)  # refuses weights that do not fit

    def sampler(self, batch_size: int, seed: int) -> TripletSampler:
        """The order of training on this mixture."""
        return TripletSampler(self.sizes, batch_size, self.weights, self.groups, seed)


class StreamMixture(TorchIterableDataset):
    """Rows of several streams, each drawn by weight; without end, as the streams are.

    Args:
        streams: `TripletStream`s of the same process, all with the towers' embeddings or all without.
        weights: any positive numbers; None: equal ones, as the lengths of streams are not known.
        seed, process_index: of the draws. Other processes draw otherwise.
    """

    def __init__(
        self,
        streams: Sequence[TripletStream],
        weights: Sequence[float] | None = None,
        seed: int = 0,
        process_index: int = 0,
    ):
        if len({own.has_features for own in streams}) > 1:
            raise ValueError("some streams have the towers' embeddings and some have not: a batch needs one kind")
        dataset_shares([1] * len(streams), weights)  # refuses weights that do not fit
        self.streams, self.has_features = list(streams), streams[0].has_features
        self.origin = joined_origin([own.origin for own in streams])
        self._weights = np.array(weights if weights is not None else [1.0] * len(streams), dtype=np.float64)
        self._seed = (seed, process_index)

    def __iter__(self) -> Iterator[Row]:
        worker = get_worker_info()
        rng = np.random.default_rng([*self._seed, 0 if worker is None else worker.id])
        rows, weights = [iter(own) for own in self.streams], self._weights.copy()
        while weights.any():
            number = int(rng.choice(len(rows), p=weights / weights.sum()))
            try:
                yield next(rows[number])
            except StopIteration:  # a worker without a file of this stream
                weights[number] = 0
