"""A contrastive step over a batch of which only a part fits into memory (GradCache, arXiv 2101.06983).

First pass: all parts are embedded without gradient. The loss compares all clouds of the step, on all processes, and
gives the gradient of every embedding. Second pass: each part is embedded once more, with gradient, and hands its
embeddings' gradient on to the parameters. So memory is bounded by a part, the loss and its gradient are those of the
whole batch, and the encoder runs forward twice.

What is random in the encoder (dropout, stochastic depth, left-out patches) is drawn from a seed of the part's own,
the same one in each pass. BatchNorm: see `step_batch_norm`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from modeling_ulip2.models.loss import ContrastiveTerms
from modeling_ulip2.training.step_batch_norm import StepBatchNorm

# What is done to the BatchNorm of an encoder in a step of parts.
WHOLE, PART = "step", "part"
BATCH_NORMS = (WHOLE, PART)

Inputs = Mapping[str, Any]


def split_inputs(inputs: Inputs, size: int) -> list[dict[str, Any]]:
    """Model inputs of B clouds as parts of at most `size`; what has no row for each cloud goes with every part."""
    count = len(inputs["point_values"])
    return [
        {name: value[start : start + size] if _has_rows(value, count) else value for name, value in inputs.items()}
        for start in range(0, count, size)
    ]


def _has_rows(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == count


def grad_cache_step(
    model: Any,
    compare: Callable[[Tensor, Tensor | None, Tensor | None], ContrastiveTerms],
    parts: Sequence[Inputs],
    batch_norm: str = WHOLE,
    loss_factor: Callable[[Tensor], Tensor] | None = None,
) -> ContrastiveTerms:
    """Adds the gradient of the whole step's loss to the parameters of `model`; returns the terms of the loss.

    On several processes, gradients are those of this process's share, still to be averaged (`average_gradients`).

    Args:
        model: called with the inputs of a part; returns `point_embeds`, `text_embeds`, `image_embeds`. Not wrapped for
            several processes, unless by FSDP.
        compare: `Ulip2Model.compare`; its gradient for the logit scale is added, too.
        parts: inputs of `Ulip2Model.forward`; together the batch of this process. A part is what has to fit into
            memory.
        batch_norm: "step": statistics of all clouds of the step, as in one pass; "part": of each part (on all
            processes where BatchNorm is synchronized), which is cheaper where an encoder has many such layers.
        loss_factor: scales the loss before its gradient is taken, as mixed precision in float16 wants.
    """
    if batch_norm not in BATCH_NORMS:
        raise ValueError(f"batch_norm must be one of {', '.join(BATCH_NORMS)}, not {batch_norm!r}")
    device = parts[0]["point_values"].device
    seeds = torch.randint(2**62, (len(parts),)).tolist()

    def embedding(part: Inputs, seed: int) -> Callable[[], Tensor]:
        def embed() -> Tensor:
            with _seeded(seed, device):
                return model(point_values=part["point_values"]).point_embeds  # (b, D)

        return embed

    runs = [embedding(part, seed) for part, seed in zip(parts, seeds, strict=True)]
    texts, images = _partners(model, parts)
    if batch_norm == WHOLE and any(isinstance(own, _BatchNorm) and own.training for own in model.modules()):
        norm = StepBatchNorm(model)
        with norm.active():
            leaves = [own.detach().requires_grad_() for own in norm.embed(runs)]
            terms, gradients = _compared(compare, leaves, texts, images, loss_factor)
            norm.backward(runs, gradients)
        return terms
    with torch.no_grad(), _running_statistics_kept(model):
        leaves = [run() for run in runs]
    leaves = [own.detach().requires_grad_() for own in leaves]
    terms, gradients = _compared(compare, leaves, texts, images, loss_factor)
    for run, gradient in zip(runs, gradients, strict=True):
        outputs = run()
        outputs.backward(gradient.to(outputs.dtype))
    return terms


def average_gradients(parameters: Iterator[nn.Parameter]) -> None:
    """Gradients become their means over all processes; those that FSDP shards are that already."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    gradients = [own.grad for own in parameters if own.grad is not None and not isinstance(own.grad, DTensor)]
    for work in [dist.all_reduce(gradient, async_op=True) for gradient in gradients]:
        work.wait()
    for gradient in gradients:
        gradient.div_(dist.get_world_size())


@torch.no_grad()
def _partners(model: Any, parts: Sequence[Inputs]) -> tuple[Tensor | None, Tensor | None]:
    """Text and image embeddings (B, D) of all parts: the tower is frozen and runs once."""
    found = [
        model(**{name: value for name, value in part.items() if name not in ("point_values", "return_loss")})
        for part in parts
    ]
    texts, images = ([getattr(own, name) for own in found] for name in ("text_embeds", "image_embeds"))
    return None if texts[0] is None else torch.cat(texts), None if images[0] is None else torch.cat(images)


def _compared(
    compare: Callable[[Tensor, Tensor | None, Tensor | None], ContrastiveTerms],
    leaves: list[Tensor],
    texts: Tensor | None,
    images: Tensor | None,
    loss_factor: Callable[[Tensor], Tensor] | None,
) -> tuple[ContrastiveTerms, list[Tensor]]:
    """Terms of the loss, without gradient, and the gradient of each part's embeddings."""
    terms = compare(torch.cat(leaves), texts, images)
    (terms.loss if loss_factor is None else loss_factor(terms.loss)).backward()
    return terms.detached(), [own.grad for own in leaves if own.grad is not None]


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers follow `seed`; afterwards they go on as if nothing had been drawn."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """BatchNorm normalizes by the batch and leaves its running statistics alone: the second pass updates them."""
    layers = [own for own in model.modules() if isinstance(own, _BatchNorm) and own.training]
    before = [[own.clone() for own in layer.buffers(recurse=False)] for layer in layers]
    try:
        yield
    finally:
        for layer, values in zip(layers, before, strict=True):
            for buffer, value in zip(layer.buffers(recurse=False), values, strict=True):
                buffer.copy_(value)
