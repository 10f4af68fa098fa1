"""The contrastive loss of ULIP-2 and what its embeddings are: captions averaged, rows gathered from all processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F


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


def contrastive_loss(
    point_embeds: torch.Tensor,
    text_embeds: torch.Tensor | None,
    image_embeds: torch.Tensor | None,
    logit_scale: torch.Tensor,
    gather_with_grad: bool = True,
) -> torch.Tensor:
    """Contrastive loss over the global batch (ULIP-2, section 3.3, equation 2).

    For point-text and point-image, where both are given: cross-entropy of points against all partners and of partners
    against all points, halved; the two are summed. Row i of every tensor belongs to shape i. In a distributed group
    each process compares its own rows with the rows of all processes, which must hold equally many.

    Args:
        point_embeds, text_embeds, image_embeds: (B, D) of this process, normalized here.
        logit_scale: scalar factor of the cosines (exponentiated, not its logarithm).
        gather_with_grad: let gradients flow through the rows of other processes. With it, the gradient averaged over
            processes is that of one process holding the whole batch; without it (the original) about half of that.

    Returns:
        Scalar, the mean over this process's rows.
    """
    partners = [embeds for embeds in (text_embeds, image_embeds) if embeds is not None]
    if not partners:
        raise ValueError("The loss compares points with texts or images: pass text_embeds, image_embeds or both.")
    for embeds in partners:
        if embeds.shape != point_embeds.shape:
            raise ValueError(
                f"Embeddings must have equal shapes, row i for shape i: points have {tuple(point_embeds.shape)}, "
                f"texts or images {tuple(embeds.shape)}."
            )
    with torch.autocast(point_embeds.device.type, enabled=False):
        local = [F.normalize(embeds.float(), dim=-1) for embeds in (point_embeds, *partners)]  # (B, D) each
        everywhere, first_row = local, 0
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            rows = torch.cat(local, dim=1)  # (B, modalities * D): one collective for all
            everywhere = list(
                _GatherWithGrad.apply(rows if gather_with_grad else rows.detach()).chunk(len(local), dim=1)
            )
            first_row = dist.get_rank() * len(point_embeds)
        target = torch.arange(len(point_embeds), device=point_embeds.device) + first_row  # (B,)
        scale = logit_scale.float()
        loss = scale.new_zeros(())
        for i in range(1, len(local)):
            per_point = scale * local[0] @ everywhere[i].T  # (B, B of all processes)
            per_partner = scale * local[i] @ everywhere[0].T  # (B, B of all processes)
            loss = loss + (F.cross_entropy(per_point, target) + F.cross_entropy(per_partner, target)) / 2
        return loss


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


__all__ = ["average_captions", "contrastive_loss"]
