"""The contrastive loss in one process; several processes: `tests/parity/contrastive_loss.py`."""

from __future__ import annotations

import math

import pytest
import torch

from modeling_ulip2 import contrastive_loss
from modeling_ulip2.models.loss import average_captions


def log_softmax(row: list[float], index: int) -> float:
    return row[index] - math.log(sum(math.exp(value) for value in row))


def test_both_directions_of_a_matrix_that_is_not_symmetric() -> None:
    """Unit vectors in the plane by their angles, the loss written out with plain numbers."""
    point_angles, text_angles, scale = [0.0, 0.2, 2.5], [0.3, 2.0, 2.2], 3.0
    logits = [[scale * math.cos(p - t) for t in text_angles] for p in point_angles]
    points_to_texts = -sum(log_softmax(row, i) for i, row in enumerate(logits)) / 3
    texts_to_points = -sum(log_softmax([row[i] for row in logits], i) for i in range(3)) / 3
    assert abs(points_to_texts - texts_to_points) > 0.05

    def vectors(angles: list[float]) -> torch.Tensor:
        angle = torch.tensor(angles)
        return 7 * torch.stack([angle.cos(), angle.sin()], dim=1)  # length does not matter

    loss = contrastive_loss(vectors(point_angles), vectors(text_angles), None, torch.tensor(scale))
    assert loss.item() == pytest.approx((points_to_texts + texts_to_points) / 2, rel=1e-5)


def test_pairs_add_up() -> None:
    points, texts, images = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor(10.0)
    both = contrastive_loss(points, texts, images, scale)
    text, image = contrastive_loss(points, texts, None, scale), contrastive_loss(points, None, images, scale)
    torch.testing.assert_close(both, text + image)


def test_half_precision_inputs_and_autocast_are_computed_in_float32() -> None:
    points, texts = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = contrastive_loss(points.float(), texts.float(), None, torch.tensor(20.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrastive_loss(points, texts, None, torch.tensor(20.0))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact)


def test_what_cannot_be_compared_is_refused() -> None:
    points = torch.randn(4, 8)
    with pytest.raises(ValueError, match="pass text_embeds, image_embeds or both"):
        contrastive_loss(points, None, None, torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"\(4, 8\).*\(3, 8\)"):
        contrastive_loss(points, torch.randn(3, 8), None, torch.tensor(1.0))


def test_captions_are_normalized_before_and_after_averaging() -> None:
    captions = torch.tensor([[[10.0, 0.0], [0.0, 0.1]]])  # the long one must not win
    torch.testing.assert_close(average_captions(captions), torch.tensor([[0.5, 0.5]]).sqrt())


def test_absent_captions_do_not_count_and_none_at_all_is_no_nan() -> None:
    captions = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    found = average_captions(captions, mask)
    torch.testing.assert_close(found[0], average_captions(captions[:1, :2])[0])
    torch.testing.assert_close(found[1], average_captions(captions[1:2])[0])
    assert torch.equal(found[2], torch.zeros(8))
