"""Gradients on another processor: a ReLU or a maximum that flips at rounding is told from a fault.

Where a ReLU's input is zero up to rounding, or the two largest values of a maximum are equal up to rounding,
processors that sum in another order take another branch. Outputs agree to the last digits, but the gradient takes
another way from there on, and one or two of many channels differ by far more than rounding.

Which branches may flip is computed here, in float64: a *tie* is a place whose distance from flipping is within the
rounding of float32. So is what each flip does to all gradients. A recording is accepted where the gradients of this
machine, plus what a few flips of ties add, are the recorded ones entry by entry, within the tolerance that holds
without flips. Each flip counts whole or not at all (its coefficient is -1, 0 or 1), so that a gradient that is scaled,
lost or misplaced stays a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Gradients = dict[str, Tensor]

# Distance from flipping, as a share of the typical size (root mean square) of what is compared, within which float32
# may decide otherwise: sums of some hundred terms, through some layers, are off by a few millionths of it.
ROUNDING = 1e-5
# Distances that are rounding of float64.
EQUAL = 1e-12
# More flips than this are no rounding. A recording of a few million activations has some ten ties.
MAX_FLIPS, MAX_TIES = 8, 64

_RELUS = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_MAXIMA = {torch.max, Tensor.max}


@dataclass(frozen=True)
class Tie:
    """A place where rounding decides.

    Attributes:
        call: which ReLU or maximum of the forward pass, counted from 0.
        place: index into its flattened output.
        distance: from flipping, in units of the typical size.
        other: of a maximum, the index that is taken after the flip.
    """

    call: int
    place: int
    distance: float
    other: int | None = None


class Branches(TorchFunctionMode):
    """While it is active, finds the ties of every ReLU and maximum, and takes the other branch at those in `flips`."""

    def __init__(self, flips: tuple[Tie, ...] = ()):
        super().__init__()
        self.ties: list[Tie] = []
        self._flips, self._call = flips, -1

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _RELUS:
            self._call += 1
            return self._relu(args[0] if args else kwargs["input"])
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if function in _MAXIMA and isinstance(dim, int):
            self._call += 1
            return self._maximum(args[0], dim)
        return function(*args, **kwargs)

    def _relu(self, values: Tensor) -> Tensor:
        with torch.no_grad():
            distance = values.abs() / _size(values)
            close = (distance < ROUNDING).flatten().nonzero().flatten().tolist()
            self.ties += [Tie(self._call, place, float(distance.flatten()[place])) for place in close]
            mask = values > 0
            for flip in self._flips:
                if flip.call == self._call:
                    mask.view(-1)[flip.place] ^= True
        return torch.where(mask, values, torch.zeros((), dtype=values.dtype))

    def _maximum(self, values: Tensor, dim: int) -> Any:
        with torch.no_grad():
            first = values.max(dim, keepdim=True).indices  # of equal ones that which `max` takes
            if values.shape[dim] > 1:
                best, index = values.topk(2, dim=dim)
                (one, two), (largest, next_largest) = index.chunk(2, dim=dim), best.chunk(2, dim=dim)
                other = torch.where(one == first, two, one).flatten()
                distance = ((largest - next_largest) / _size(values)).flatten()
                # exactly equal are copies of a point, or what a ReLU has cut off: the gradient is the same
                for place in ((distance < ROUNDING) & (distance > EQUAL)).nonzero().flatten().tolist():
                    self.ties.append(Tie(self._call, place, float(distance[place]), int(other[place])))
            chosen = first.clone()
            for flip in self._flips:
                if flip.call == self._call:
                    chosen.view(-1)[flip.place] = flip.other
        taken = values.gather(dim, chosen).squeeze(dim)
        return torch.return_types.max((taken, chosen.squeeze(dim)))


def _size(values: Tensor) -> Tensor:
    return values.square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)


def flipped(run: Callable[[], Gradients], *flips: Tie) -> Gradients:
    """The gradients that `run` gives with some ties decided the other way."""
    with Branches(flips):
        return run()


def ties_of(run: Callable[[], Gradients]) -> tuple[list[Tie], Gradients]:
    """The ties of a forward pass, those nearest to flipping first, and its gradients without flips."""
    with Branches() as branches:
        gradients = run()
    return sorted(branches.ties, key=lambda tie: tie.distance), gradients


def changes_of(run: Callable[[], Gradients]) -> list[Gradients]:
    """What the flip of each tie adds to all gradients, in float64; of the `MAX_TIES` that are nearest to flipping."""
    ties, straight = ties_of(run)
    flips = (flipped(run, tie) for tie in ties[:MAX_TIES])
    return [{name: own[name].double() - straight[name].double() for name in own} for own in flips]


def within(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: Mapping[str, float]) -> bool:
    """Is every entry of every recorded gradient within its tolerance? NaN is not."""
    return all(
        bool(((actual[name].double() - expected[name].double()).abs() <= tolerance[name]).all()) for name in expected
    )


def explain(
    run: Callable[[], Gradients],
    actual: Gradients,
    expected: Mapping[str, Tensor],
    tolerance: Mapping[str, float],
) -> tuple[Gradients, int]:
    """The gradients of this machine with the recording's branches, and how many ties it took another branch at.

    Args:
        run: forward and backward pass in float64; gradients by name. Called once for each tie.
        actual: this machine's gradients in float32.
        expected: the recorded ones; some of the names.
        tolerance: by name, of every entry.

    Returns:
        `actual` and 0 where it agrees as it is, or where no few flips of ties explain the difference: the comparison
        that follows then fails as it would have.
    """
    if within(actual, expected, tolerance):
        return actual, 0
    changes = changes_of(run)
    if not changes:
        return actual, 0

    def stacked(values: Mapping[str, Tensor]) -> Tensor:
        """All recorded entries in units of their tolerance."""
        return torch.cat([values[name].double().flatten() / tolerance[name] for name in expected])

    matrix = torch.stack([stacked(change) for change in changes])  # (ties, entries)
    missing = stacked({name: expected[name].double() - actual[name].double() for name in expected})  # (entries,)
    if not missing.isfinite().all():
        return actual, 0
    used = (matrix.abs() > 1).any(dim=1).nonzero().flatten()  # the others are within tolerance anyway
    if not len(used):
        return actual, 0
    weights = torch.linalg.lstsq(matrix[used].T, missing[:, None], driver="gelsd").solution.flatten()  # (used,)
    signs = weights.round().clamp(-1, 1)
    taken = [(int(sign), changes[int(row)]) for row, sign in zip(used, signs, strict=True) if sign]
    if not 0 < len(taken) <= MAX_FLIPS:
        return actual, 0
    moved = {
        name: (own.double() + sum(sign * change[name] for sign, change in taken)).float()
        for name, own in actual.items()
    }
    return (moved, len(taken)) if within(moved, expected, tolerance) else (actual, 0)
