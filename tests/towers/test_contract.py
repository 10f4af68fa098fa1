"""One contract for every kind of tower: what it embeds, what its processor makes, what `Ulip2Model` takes of it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model, Ulip2Processor
from modeling_ulip2.towers import Tower, load_tower
from tests.models.tiny import POINT_CONFIG

KINDS = ("conse", "clip", "siglip", "siglip2", "slip", "chinese_clip", "open_clip")
# of different lengths, so that padding is part of it
TEXTS = ["a chair", "a photo of a red wooden table . a blue lamp", "cat"]


@pytest.fixture(params=KINDS)
def reference(request: pytest.FixtureRequest) -> str:
    if request.param == "open_clip":
        return f"open_clip:{request.getfixturevalue('open_clip_name')}"
    return str(request.getfixturevalue(f"{request.param}_folder"))


@pytest.fixture
def tower(reference: str) -> Tower:
    return load_tower(reference, device="cpu")


def pictures(count: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(count)]


def model_for(tower: Tower, **fields: Any) -> Ulip2Model:
    torch.manual_seed(0)
    return Ulip2Model(Ulip2Config(point_config=POINT_CONFIG, projection_dim=tower.dim, **fields)).eval()


def processor_for(tower: Tower) -> Ulip2Processor:
    return Ulip2Processor(Ulip2FeatureExtractor(num_points=40), tower.tokenizer, tower.image_processor)


def clouds(count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).random((count, 50, 6))


def test_embeddings(tower: Tower) -> None:
    texts, images = tower.encode_text(TEXTS), tower.encode_images(pictures())
    for embeds in (texts, images):
        assert embeds.shape == (3, tower.dim) and embeds.dtype == torch.float32 and embeds.device.type == "cpu"
        torch.testing.assert_close(embeds.norm(dim=-1), torch.ones(3))
    assert tower.name and tower.max_length > 1 and tower.model_type and tower.dtype == torch.float32
    assert tower.encode_text([]).shape == (0, tower.dim)
    torch.testing.assert_close(tower.encode_text(TEXTS[:1])[0], texts[0], atol=1e-5, rtol=0)  # whatever stands beside


@pytest.mark.parametrize("given", ["".join(c) for n in (1, 2, 3) for c in itertools.combinations("pti", n)])
def test_what_its_processor_makes_a_model_takes(tower: Tower, given: str) -> None:
    model, processor = model_for(tower), processor_for(tower)
    model.set_clip_model(tower.pretrained_model)
    arguments = {"p": {"point_clouds": clouds()}, "t": {"text": TEXTS}, "i": {"images": pictures()}}
    inputs = processor(**{name: value for letter in given for name, value in arguments[letter].items()})
    with torch.no_grad():
        output = model(**inputs)
    if "p" in given:
        assert output.point_embeds.shape == (3, tower.dim)
    if "t" in given:  # the embeddings are those that training would take from a store
        torch.testing.assert_close(output.text_embeds, tower.encode_text(TEXTS), atol=1e-5, rtol=1e-4)
    if "i" in given:  # open_clip's own transform and Pillow shrink pictures alike up to rounding
        atol = 2e-2 if tower.model_type == "open_clip" else 1e-5
        torch.testing.assert_close(output.image_embeds, tower.encode_images(pictures()), atol=atol, rtol=1e-4)
    assert (output.logits_per_point_text is not None) == ("p" in given and "t" in given)


def test_features_by_themselves(tower: Tower) -> None:
    model, processor = model_for(tower), processor_for(tower)
    model.set_clip_model(tower.pretrained_model)
    with torch.no_grad():
        text = model.get_text_features(**processor(text=TEXTS)).pooler_output
        image = model.get_image_features(**processor(images=pictures())).pooler_output
    torch.testing.assert_close(F.normalize(text, dim=-1), tower.encode_text(TEXTS), atol=1e-5, rtol=1e-4)
    assert image.shape == (3, tower.dim)


def test_several_captions_a_shape(tower: Tower) -> None:
    model, processor = model_for(tower), processor_for(tower)
    model.set_clip_model(tower.pretrained_model)
    with torch.no_grad():
        output = model(**processor(text=[TEXTS[:2], TEXTS[2:]]))
    expected = tower.encode_text(TEXTS)
    first = F.normalize(expected[:2].mean(0), dim=-1)
    torch.testing.assert_close(output.text_embeds, torch.stack([first, expected[2]]), atol=1e-5, rtol=1e-4)


def test_a_reference_trains_and_comes_back(tower: Tower, reference: str, tmp_path: Any) -> None:
    """The model's own loading by name, a training step with gradients, and the saved processor."""
    model, processor = model_for(tower, clip_name_or_path=reference), processor_for(tower)
    processor.save_pretrained(tmp_path)
    processor = Ulip2Processor.from_pretrained(tmp_path)
    inputs = processor(point_clouds=clouds(), text=TEXTS, images=pictures())
    output = model.train()(**inputs, return_loss=True)
    output.loss.backward()
    assert model.point_projection.weight.grad.abs().sum() > 0
    torch.testing.assert_close(output.text_embeds, tower.encode_text(TEXTS), atol=1e-5, rtol=1e-4)
    assert all(not parameter.requires_grad for parameter in model.get_clip_model().parameters())
    model.save_pretrained(tmp_path)
    again = Ulip2Model.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).text_embeds, output.text_embeds)


def test_a_tokenizer_that_makes_a_mask_beside_siglip(siglip_folder: Any) -> None:
    """Whoever builds the processor from the folder, without `load_tower`, gets SigLIP's convention as well."""
    from transformers import AutoProcessor

    raw = AutoProcessor.from_pretrained(siglip_folder)
    assert "attention_mask" in raw.tokenizer.model_input_names
    made = Ulip2Processor(Ulip2FeatureExtractor(), raw.tokenizer, raw.image_processor)(text=["a chair"])
    assert "attention_mask" not in made and made["input_ids"].shape == (1, 8)


def test_an_input_that_nothing_takes_is_refused(clip_folder: Any) -> None:
    tower = load_tower(clip_folder, device="cpu")
    model, inputs = model_for(tower), processor_for(tower)(text=["a chair"])
    model.set_clip_model(tower.pretrained_model)
    with pytest.raises(TypeError, match="'input_idss' is an input neither of this model nor of .*CLIPModel"):
        model(**inputs, input_idss=inputs["input_ids"])
    with pytest.raises(TypeError, match="get_text_features takes no 'decoder_ids'"):
        model.get_text_features(**inputs, decoder_ids=inputs["input_ids"])


def test_one_vector_for_each_text_is_needed(clip_folder: Any) -> None:
    tower = load_tower(clip_folder, device="cpu")
    model, inputs = model_for(tower), processor_for(tower)(text=["a chair"])
    own = tower.pretrained_model
    model.set_clip_model(own)
    own.get_text_features = lambda **given: own.text_model(**given).last_hidden_state  # one vector for each token
    with pytest.raises(ValueError, match=r"CLIPModel makes text features of shape \(1, \d+, \d+\)"):
        model.get_text_features(**inputs)
