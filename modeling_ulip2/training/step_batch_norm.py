"""Batch normalization over all parts of a training step that is computed part by part.

A batch that does not fit into memory goes through the encoder in parts, and parts normalized by their own statistics
would be another model than the whole batch. Here every layer normalizes by the mean and variance of all clouds of the
step, on all processes, and their gradients are those of the whole batch:

1. Statistics, layer by layer: the parts run up to the layer, whose moments are merged (Chan's formula).
2. The parts run with the statistics as constants whose gradients are kept. The last layer's are complete then.
3. From the last layer to the first: the parts run up to the layer once more, and the gradient of its statistics flows
   back into its inputs, to the parameters and to the statistics of the layers before it.

So a layer costs two partial passes forward and one backward, through what stands before it alone. Point-BERT has two
such layers, both in front of its transformer; PointMLP, PointNeXt and PointNet++ have dozens all the way up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# A layer, and which of its calls within one forward pass is meant.
Place: TypeAlias = tuple[_BatchNorm, int]


@dataclass
class _Moments:
    """Of values merged so far, a number for each channel (C,); leaves of the graph once they are complete."""

    count: float
    mean: Tensor
    variance: Tensor  # biased

    def merge(self, count: float, mean: Tensor, variance: Tensor) -> None:
        total = self.count + count
        step = mean - self.mean
        between = step.square() * (self.count / total) * (count / total)
        self.variance = (self.variance * self.count + variance * count) / total + between
        self.mean, self.count = self.mean + step * (count / total), total


class _Reached(Exception):  # noqa: N818
    """Ends a forward pass at a layer."""

    def __init__(self, values: Tensor):
        self.values = values


class StepBatchNorm:
    """Makes the BatchNorm layers of a model span all parts of one step; see the module. For one step each.

    Args:
        model: layers in training mode take part, whatever class `synchronize_batch_norm` gave them.
    """

    def __init__(self, model: nn.Module):
        self.layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
        self.known: dict[Place, _Moments] = {}  # in the order of the forward pass
        self._calls: dict[_BatchNorm, int] = {}
        self._calls_per_pass: Counter[_BatchNorm] = Counter()  # once all layers are known
        self._stop_at: Place | None = None

    @contextmanager
    def active(self) -> Iterator[None]:
        """While it lasts, the layers do what this object says."""
        try:
            for layer in self.layers:
                layer.forward = self._forward_of(layer)  # type: ignore[method-assign, assignment]
            yield
        finally:
            for layer in self.layers:
                layer.__dict__.pop("forward", None)

    def _forward_of(self, layer: _BatchNorm) -> Callable[[Tensor], Tensor]:
        def forward(values: Tensor) -> Tensor:
            calls = self._calls.get(layer, 0)
            self._calls[layer] = calls + 1
            # activations that are computed again in a backward pass call the layers again
            place = (layer, calls % self._calls_per_pass[layer] if self._calls_per_pass else calls)
            if place not in self.known or place == self._stop_at:
                raise _Reached(values)
            return _normalized(values, layer, self.known[place])

        return forward

    def _run(self, part: Callable[[], Any]) -> Any:
        self._calls.clear()
        return part()

    @torch.no_grad()
    def embed(self, parts: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
        """What the parts return, without gradient, once the statistics of all layers are known (step 1)."""
        while True:
            results, found = [], None
            for part in parts:
                try:
                    results.append(self._run(part))
                except _Reached as reached:
                    found = self._merged(found, reached.values)
            if found is None:
                self._calls_per_pass = Counter(layer for layer, _ in self.known)
                return results
            place = self._last_place()
            count, mean, variance = _over_processes(found)
            self.known[place] = _Moments(count, mean.requires_grad_(), variance.requires_grad_())
            _update_running(place[0], self.known[place])

    def _last_place(self) -> Place:
        """Where the pass that just ended did so."""
        return next((layer, calls - 1) for layer, calls in self._calls.items() if (layer, calls - 1) not in self.known)

    @staticmethod
    def _merged(found: _Moments | None, values: Tensor) -> _Moments:
        count, mean, variance = _moments(values)
        if found is None:
            return _Moments(count, mean, variance)
        found.merge(count, mean, variance)
        return found

    def backward(self, parts: Sequence[Callable[[], Tensor]], gradients: Sequence[Tensor]) -> None:
        """Adds to the parameters' gradients those of the parts' outputs, given `gradients` of these (steps 2, 3)."""
        for part, gradient in zip(parts, gradients, strict=True):
            outputs = self._run(part)
            outputs.backward(gradient.to(outputs.dtype))
        for place, moments in reversed(self.known.items()):
            wanted = []
            for statistic in (moments.mean, moments.variance):
                own = torch.zeros_like(statistic) if statistic.grad is None else statistic.grad
                if _processes() > 1:
                    dist.all_reduce(own)
                wanted.append(own)
            for part in parts:
                self._stop_at = place
                try:
                    self._run(part)
                except _Reached as reached:
                    self._stop_at = None
                    self._backward_to(reached.values, moments, *wanted)

    @staticmethod
    def _backward_to(values: Tensor, moments: _Moments, mean_gradient: Tensor, variance_gradient: Tensor) -> None:
        """The gradient of a layer's statistics flows back into a part of its inputs."""
        if not values.requires_grad:
            return
        channels = _channels_last(values)  # (n, C)
        # the mean within the variance is a constant: its own gradient there is zero
        centered = channels - moments.mean.detach()
        share = (mean_gradient * channels).sum() + (variance_gradient * centered.square()).sum()
        (share / moments.count).backward()


def _channels_last(values: Tensor) -> Tensor:
    """(B, C, ...) -> (n, C), in float32 at least."""
    values = values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
    return values.movedim(1, -1).flatten(0, -2)


def _moments(values: Tensor) -> tuple[float, Tensor, Tensor]:
    channels = _channels_last(values)
    mean = channels.mean(dim=0)
    return float(len(channels)), mean, (channels - mean).square().mean(dim=0)


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _over_processes(moments: _Moments) -> tuple[float, Tensor, Tensor]:
    """Moments of the values of all processes."""
    if _processes() == 1:
        return moments.count, moments.mean, moments.variance
    own = torch.cat([moments.mean.new_tensor([moments.count]), moments.mean, moments.variance])
    every = [torch.empty_like(own) for _ in range(_processes())]
    dist.all_gather(every, own)
    merged: _Moments | None = None
    for row in every:
        mean, variance = row[1:].chunk(2)
        if merged is None:
            merged = _Moments(float(row[0]), mean, variance)
        else:
            merged.merge(float(row[0]), mean, variance)
    assert merged is not None
    return merged.count, merged.mean.clone(), merged.variance.clone()


def _normalized(values: Tensor, layer: _BatchNorm, moments: _Moments) -> Tensor:
    shape = [1, -1] + [1] * (values.dim() - 2)
    factor = torch.rsqrt(moments.variance + layer.eps)  # (C,)
    if layer.affine:
        factor = factor * layer.weight
    result = (values - moments.mean.view(shape)) * factor.view(shape)
    if layer.affine:
        result = result + layer.bias.view(shape)
    return result.to(values.dtype)


def _update_running(layer: _BatchNorm, moments: _Moments) -> None:
    """As `nn.BatchNorm` does once a step."""
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked += 1
    momentum = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    unbiased = moments.variance.detach() * (moments.count / max(moments.count - 1, 1))
    layer.running_mean.lerp_(moments.mean.detach().to(layer.running_mean.dtype), momentum)
    layer.running_var.lerp_(unbiased.to(layer.running_var.dtype), momentum)
