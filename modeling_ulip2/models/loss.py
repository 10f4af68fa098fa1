"""The contrastive loss of ULIP-2 and what its embeddings are: captions averaged, rows gathered from all processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

LOSS_TYPES = ("clip", "siglip")


class _GatherWithGrad(torch.autograd.Function):
    """Concatenates the rows of all processes; backward sums what every process wants of this process's rows."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        ctx.size = rows.shape[0]
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        total = grads[0].contiguous()
        dist.all_reduce(total)
        return total.narrow(0, dist.get_rank() * ctx.size, ctx.size)


@dataclass
class ContrastiveTerms:
    """The loss and what it consists of; a part whose embeddings are not given is None.

    loss: scalar, the weighted sum of the two losses.
    text_loss, image_loss: scalars, points against texts and points against images, before weighting.
    text_accuracy, image_accuracy: share of this process's points whose own text or image is the most similar one.
    """

    loss: torch.Tensor
    text_loss: torch.Tensor | None = None
    image_loss: torch.Tensor | None = None
    text_accuracy: torch.Tensor | None = None
    image_accuracy: torch.Tensor | None = None

    def detached(self) -> ContrastiveTerms:
        """The same numbers without gradient."""
        own: dict[str, Any] = {name: None if value is None else value.detach() for name, value in vars(self).items()}
        return ContrastiveTerms(**own)


def contrastive_loss(
    point_embeds: torch.Tensor,
    text_embeds: torch.Tensor | None,
    image_embeds: torch.Tensor | None,
    logit_scale: torch.Tensor,
    gather_with_grad: bool = True,
    **options: Any,
) -> torch.Tensor:
    """The loss of `contrastive_terms`, which says what it is and takes the same arguments."""
    return contrastive_terms(point_embeds, text_embeds, image_embeds, logit_scale, gather_with_grad, **options).loss


def contrastive_terms(
    point_embeds: torch.Tensor,
    text_embeds: torch.Tensor | None,
    image_embeds: torch.Tensor | None,
    logit_scale: torch.Tensor,
    gather_with_grad: bool = True,
    *,
    text_weight: float = 1.0,
    image_weight: float = 1.0,
    loss_type: str = "clip",
    logit_bias: torch.Tensor | None = None,
    chunk_size: int | None = None,
) -> ContrastiveTerms:
    """Contrastive loss over the global batch (ULIP-2, section 3.3, equation 2), and its parts.

    For point-text and point-image, where both are given: cross-entropy of points against all partners and of partners
    against all points, halved; the two are summed. Row i of every tensor belongs to shape i. In a distributed group
    each process compares its own rows with the rows of all processes, which must hold equally many.

    Args:
        point_embeds, text_embeds, image_embeds: (B, D) of this process, normalized here.
        logit_scale: scalar factor of the cosines (exponentiated, not its logarithm).
        gather_with_grad: let gradients flow through the rows of other processes. With it, the gradient averaged over
            processes is that of one process holding the whole batch; without it (the original) about half of that.
        text_weight, image_weight: of the two losses in their sum; ULIP-2 has 1 and 1.
        loss_type: "clip", or "siglip" (arXiv 2303.15343): each pair by itself, belonging together or not, summed over
            partners and averaged over points.
        logit_bias: scalar added to the logits of "siglip"; None: 0.
        chunk_size: compare so many rows at a time with all others, and once more in the backward pass: memory then
            grows with `chunk_size` times the global batch instead of B times. None: all at once.

    Returns:
        Means over this process's rows.
    """
    partners = {"text": text_embeds, "image": image_embeds}
    given = {name: embeds for name, embeds in partners.items() if embeds is not None}
    if not given:
        raise ValueError("The loss compares points with texts or images: pass text_embeds, image_embeds or both.")
    for name, embeds in given.items():
        if embeds.shape != point_embeds.shape:
            raise ValueError(
                f"Embeddings must have equal shapes, row i for shape i: points have {tuple(point_embeds.shape)}, "
                f"{name}s {tuple(embeds.shape)}."
            )
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"loss_type must be one of {', '.join(LOSS_TYPES)}, not {loss_type!r}.")
    weights = {"text": text_weight, "image": image_weight}
    with torch.autocast(point_embeds.device.type, enabled=False):
        local = [F.normalize(embeds.float(), dim=-1) for embeds in (point_embeds, *given.values())]  # (B, D) each
        everywhere, first_row = local, 0
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            rows = torch.cat(local, dim=1)  # (B, modalities * D): one collective for all
            everywhere = list(
                _GatherWithGrad.apply(rows if gather_with_grad else rows.detach()).chunk(len(local), dim=1)
            )
            first_row = dist.get_rank() * len(point_embeds)
        target = torch.arange(len(point_embeds), device=point_embeds.device) + first_row  # (B,)
        scale = logit_scale.float()
        bias = scale.new_zeros(()) if logit_bias is None else logit_bias.float()
        found: dict[str, torch.Tensor] = {"loss": scale.new_zeros(())}
        for i, name in enumerate(given, start=1):
            loss, right = _compared(
                local[0], local[i], everywhere[0], everywhere[i], target, scale, bias, loss_type, chunk_size
            )
            found["loss"] = found["loss"] + weights[name] * loss
            found |= {f"{name}_loss": loss, f"{name}_accuracy": right}
        return ContrastiveTerms(**found)


def _compared(
    points: torch.Tensor,
    partners: torch.Tensor,
    all_points: torch.Tensor,
    all_partners: torch.Tensor,
    target: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    loss_type: str,
    chunk_size: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss and accuracy of rows (B, D) compared with all rows (A, D); row i belongs to row `target[i]`."""
    count = len(points)
    size = chunk_size or count
    if size >= count:
        loss, right = _summed(points, partners, all_points, all_partners, target, scale, bias, loss_type)
        return loss / count, right / count
    loss, right = scale.new_zeros(()), scale.new_zeros(())
    for own in zip(points.split(size), partners.split(size), target.split(size), strict=True):
        more, also = checkpoint(
            _summed, *own[:2], all_points, all_partners, own[2], scale, bias, loss_type, use_reentrant=False
        )
        loss, right = loss + more, right + also
    return loss / count, right / count


def _summed(
    points: torch.Tensor,
    partners: torch.Tensor,
    all_points: torch.Tensor,
    all_partners: torch.Tensor,
    target: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    loss_type: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of some rows (b, D), summed, and how many of their points have the right partner first."""
    per_point = scale * points @ all_partners.T  # (b, A)
    right = (per_point.argmax(dim=1) == target).float().sum()
    if loss_type == "siglip":
        # a pair has one logit, whichever side it is seen from
        belongs = F.one_hot(target, per_point.shape[1]).to(per_point.dtype)  # (b, A)
        return -F.logsigmoid((2 * belongs - 1) * (per_point + bias)).sum(), right
    per_partner = scale * partners @ all_points.T  # (b, A)
    both = [F.cross_entropy(logits, target, reduction="sum") for logits in (per_point, per_partner)]
    return (both[0] + both[1]) / 2, right


def average_captions(text_embeds: torch.Tensor, text_mask: torch.Tensor | None = None) -> torch.Tensor:
    """One text embedding per shape: every caption normalized, averaged, normalized again.

    Args:
        text_embeds: (B, D) or (B, K, D).
        text_mask: (B, K), true for captions that are there; default: all. A row without any gives a zero embedding.

    Returns:
        (B, D) float32.
    """
    text_embeds = F.normalize(text_embeds.float(), dim=-1)
    if text_embeds.ndim == 2:
        return text_embeds
    if text_mask is not None:
        text_embeds = text_embeds * text_mask.unsqueeze(-1)
    # a sum has the direction of the mean
    return F.normalize(text_embeds.sum(dim=1), dim=-1)


__all__ = ["LOSS_TYPES", "ContrastiveTerms", "average_captions", "contrastive_loss", "contrastive_terms"]
