"""open_clip called directly gives what its conversion to transformers gives."""

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_ulip2.towers import clip_from_open_clip, load_tower
from modeling_ulip2.towers.open_clip import save_clip_from_open_clip
from modeling_ulip2.towers.open_clip_tower import OpenClipTower

open_clip = pytest.importorskip("open_clip")

TEXTS = ["a chair", "a red table with four legs", "lamp"]


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(256, size=(48, 40, 3), dtype=np.uint8)) for _ in range(3)]


@pytest.fixture(scope="module")
def direct(open_clip_name):
    return load_tower(f"open_clip:{open_clip_name}", device="cpu")


def test_it_embeds_as_its_conversion_does(direct, clip_folder, images):
    converted = load_tower(clip_folder, device="cpu")
    assert isinstance(direct, OpenClipTower) and direct.dim == converted.dim
    torch.testing.assert_close(direct.encode_text(TEXTS), converted.encode_text(TEXTS), atol=1e-5, rtol=1e-4)
    # torchvision and Pillow shrink pictures alike up to rounding
    torch.testing.assert_close(direct.encode_images(images), converted.encode_images(images), atol=2e-2, rtol=0)
    norms = direct.encode_images(images + [np.asarray(images[0])]).norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones(4))


def test_it_says_what_it_is(direct, open_clip_name):
    assert direct.name == "open_clip:model" and direct.model_type == "open_clip" and direct.dtype == torch.float32
    half = load_tower(f"open_clip:{open_clip_name}", device="cpu", dtype=torch.bfloat16)
    assert half.fingerprint == direct.fingerprint and half.dtype == torch.bfloat16
    assert (half.encode_text(TEXTS) * direct.encode_text(TEXTS)).sum(-1).min() > 0.99


def test_texts_that_are_too_long_are_cut(direct):
    assert torch.isfinite(direct.encode_text(["chair " * 200])).all()
    with pytest.raises(ValueError, match="text 1 of 2 is empty"):
        direct.encode_text(["a", " "])


@pytest.mark.parametrize(
    ("name", "message"),
    [("ViT-L-15/openai", "no model 'ViT-L-15'"), ("ViT-L-14", "needs a tag"), ("ViT-L-14/closedai", "one of openai")],
)
def test_names_that_open_clip_does_not_know_are_sentences(name, message):
    with pytest.raises(ValueError, match=message):
        load_tower(f"open_clip:{name}")


@pytest.mark.parametrize(
    ("tag", "options"),
    [("openai", {"force_quick_gelu": True}), ("laion2b_s32b_b82k", {}), ("metaclip_400m", {"force_quick_gelu": True})],
)
def test_the_tag_decides_on_the_activation(monkeypatch, tmp_path, tag, options):
    asked = []

    def create(model_name, pretrained, **given):
        asked.append((model_name, pretrained, given))
        raise RuntimeError("no network")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", create)
    monkeypatch.setattr(open_clip, "create_model", create)
    with pytest.raises(OSError, match="cannot load 'ViT-L-14/.*no network"):
        load_tower(f"open_clip:ViT-L-14/{tag}")
    with pytest.raises(RuntimeError, match="no network"):
        clip_from_open_clip("ViT-L-14", tag)
    with pytest.raises(RuntimeError, match="no network"):
        save_clip_from_open_clip("ViT-L-14", tmp_path / "saved", tag)
    assert asked == [("ViT-L-14", tag, options)] * 3
