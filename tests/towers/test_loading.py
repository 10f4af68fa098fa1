"""`load_tower`: one interface over ConSE, CLIP and SigLIP; bad input; speed-ups that change nothing."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
)

from modeling_ulip2.towers import TransformersTower, load_tower
from modeling_ulip2.towers.transformers_tower import fold_batch_norms
from tests.towers.world import tiny_conse

TEXTS = ["a chair", "a photo of a red wooden table", "cat", "a blue lamp"]


@pytest.fixture(params=["conse", "clip", "siglip"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{request.param}_folder")


def images(count: int = 5) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(count)]


@torch.no_grad()
def test_embeddings_are_the_models_own(folder: Path) -> None:
    tower = load_tower(folder)
    model: Any = AutoModel.from_pretrained(folder).eval()
    full_length = model.config.model_type == "siglip"
    inputs = tower.tokenizer(TEXTS, padding="max_length" if full_length else True, return_tensors="pt")
    mask = {} if full_length else {"attention_mask": inputs["attention_mask"]}
    text = model.get_text_features(input_ids=inputs["input_ids"], **mask).pooler_output
    pixel_values = tower.image_processor(images=images(), return_tensors="pt")["pixel_values"]
    image = model.get_image_features(pixel_values=pixel_values).pooler_output

    got_text, got_image = tower.encode_text(TEXTS), tower.encode_images(images())
    torch.testing.assert_close(got_text, F.normalize(text, dim=-1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got_image, F.normalize(image, dim=-1), atol=1e-5, rtol=1e-4)
    assert got_text.shape == (4, tower.dim) and got_image.shape == (5, tower.dim)
    assert got_text.dtype == got_image.dtype == torch.float32


def test_batch_size_changes_nothing(folder: Path) -> None:
    tower = load_tower(folder)
    for batch_size in (1, 3, 100):
        torch.testing.assert_close(tower.encode_text(TEXTS, batch_size), tower.encode_text(TEXTS), atol=1e-5, rtol=0)
        got = tower.encode_images(images(), batch_size, progress=True)
        torch.testing.assert_close(got, tower.encode_images(images()), atol=1e-5, rtol=0)


def test_embeddings_can_be_trained_against(clip_folder: Path) -> None:
    """Inference tensors could not be saved for a backward pass."""
    text = load_tower(clip_folder).encode_text(["a chair"])
    weight = torch.ones(text.shape[-1], requires_grad=True)
    (text * weight).sum().backward()
    torch.testing.assert_close(weight.grad, text[0])


def test_name_scale_and_fingerprint(folder: Path, tmp_path: Path) -> None:
    tower = load_tower(folder)
    assert tower.name == folder.name
    scale = getattr(AutoModel.from_pretrained(folder), "logit_scale", None)
    assert tower.logit_scale == (None if scale is None else pytest.approx(scale.exp().item()))
    assert load_tower(str(folder)).fingerprint == tower.fingerprint
    assert load_tower(folder, dtype=torch.bfloat16).fingerprint == tower.fingerprint
    assert tower.fingerprint.startswith(tower.model.config.model_type)

    changed = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        list(changed.parameters())[-1].mul_(1.5).add_(0.1)
    other = TransformersTower(changed, tower.tokenizer, tower.image_processor, "other")
    assert other.fingerprint != tower.fingerprint
    tower.image_processor.image_mean = [0.1, 0.2, 0.3]
    assert (
        TransformersTower(tower.model, tower.tokenizer, tower.image_processor, "same").fingerprint != tower.fingerprint
    )


def test_lower_precision_is_close(clip_folder: Path) -> None:
    exact, low = load_tower(clip_folder), load_tower(clip_folder, dtype=torch.bfloat16)
    got = low.encode_text(TEXTS)
    assert low.model.dtype == torch.bfloat16 and got.dtype == torch.float32
    assert (got * exact.encode_text(TEXTS)).sum(-1).min() > 0.99


def test_long_texts_are_cut_off_and_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    tower = load_tower(folder)
    long = "a red chair " * 60
    with caplog.at_level(logging.WARNING, logger="modeling_ulip2"):
        tower.encode_text(TEXTS)
        assert not caplog.records
        got = tower.encode_text(["cat", long])
        tower.encode_text([long])
    assert tower.max_length == {"conse": 16, "clip": 20, "siglip": 8}[tower.model.config.model_type]
    assert len(caplog.records) == 1 and f"reads {tower.max_length} tokens" in caplog.text
    torch.testing.assert_close(got[1:], tower.encode_text([long + "cat dog"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("texts", [["a chair", ""], ["a chair", "  \n"], ["a chair", None]])
def test_empty_texts_are_errors_with_their_position(conse_folder: Path, texts: list[Any]) -> None:
    with pytest.raises(ValueError, match="text 1 of 2"):
        load_tower(conse_folder).encode_text(texts)


def test_other_bad_input(conse_folder: Path, tmp_path: Path) -> None:
    tower = load_tower(conse_folder)
    with pytest.raises(ValueError, match="list of texts"):
        tower.encode_text("a chair")
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\), got float32"):
        tower.encode_images([np.zeros((8, 8, 3), np.float32)])
    with pytest.raises(ValueError, match="path/to/image"):
        tower.encode_images(["path/to/image.png"])  # type: ignore[list-item]
    config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    with pytest.raises(TypeError, match="BertModel has no get_text_features"):
        TransformersTower(BertModel(config), tower.tokenizer, tower.image_processor, "bert")
    with pytest.raises(OSError):
        load_tower(tmp_path / "nothing")


def test_nothing_gives_nothing(conse_folder: Path) -> None:
    tower = load_tower(conse_folder)
    assert tower.encode_text([]).shape == tower.encode_images([]).shape == (0, 32)


def test_image_modes_and_arrays(conse_folder: Path) -> None:
    tower = load_tower(conse_folder)
    image = images(1)[0]
    expected = tower.encode_images([image])
    rgba = image.copy()
    rgba.putalpha(255)
    for same in (np.asarray(image), rgba):
        torch.testing.assert_close(tower.encode_images([same]), expected)
    assert tower.encode_images([image.convert("L"), image.convert("P")]).isfinite().all()


@torch.no_grad()
def test_folded_batch_norms_change_nothing_and_leave_the_model_alone(conse_folder: Path, tmp_path: Path) -> None:
    model, _ = tiny_conse()
    pixel_values = torch.randn(2, 3, 32, 32)
    expected = model.get_image_features(pixel_values).logits
    folded: Any = fold_batch_norms(model)
    torch.testing.assert_close(folded.get_image_features(pixel_values).logits, expected, atol=1e-5, rtol=1e-4)
    norms = [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert not norms and len(before) > 5
    torch.testing.assert_close(model.get_image_features(pixel_values).logits, expected)

    load_tower(conse_folder).model.save_pretrained(tmp_path)
    assert set(AutoModel.from_pretrained(tmp_path).state_dict()) == set(model.state_dict())


@pytest.mark.gpu
def test_on_a_gpu(folder: Path) -> None:
    on_cpu, on_gpu = load_tower(folder, device="cpu"), load_tower(folder, device="cuda")
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.encode_text(TEXTS), on_cpu.encode_text(TEXTS), atol=1e-3, rtol=0)
    torch.testing.assert_close(on_gpu.encode_images(images()), on_cpu.encode_images(images()), atol=1e-3, rtol=0)
