"""`Ulip2Model` and its parts: modalities, captions, the tower by reference, what a checkpoint holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedModel

from modeling_ulip2 import (
    PointEncoderOutput,
    Ulip2Config,
    Ulip2Model,
    Ulip2PointModel,
    Ulip2PointModelWithProjection,
    register_point_encoder,
)
from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS
from tests.models.tiny import CONTEXT, POINT_CONFIG, PROJECTION_DIM, WORDS, clouds, tower


@pytest.fixture(scope="module")
def tower_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tower")
    tower().save_pretrained(path)
    return path


def make_model(tower_dir: Path | None = None, **fields: Any) -> Ulip2Model:
    torch.manual_seed(0)
    name = None if tower_dir is None else str(tower_dir)
    config = Ulip2Config(
        point_config=POINT_CONFIG, projection_dim=PROJECTION_DIM, **{"clip_name_or_path": name, **fields}
    )
    return Ulip2Model(config).eval()


@pytest.fixture(scope="module")
def model(tower_dir: Path) -> Ulip2Model:
    return make_model(tower_dir)


def inputs(batch: int = 3, captions: int | None = None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (batch, CONTEXT) if captions is None else (batch, captions, CONTEXT)
    ids = torch.randint(2, len(WORDS), shape, generator=generator)
    ids[..., -1] = 1  # <end>
    return {
        "point_values": clouds(batch),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.rand(batch, 3, 16, 16, generator=generator),
    }


# --- modalities ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["p", "t", "i", "pt", "pi", "ti", "pti"])
def test_any_subset_of_the_modalities(model: Ulip2Model, given: str) -> None:
    names = {"p": ["point_values"], "t": ["input_ids", "attention_mask"], "i": ["pixel_values"]}
    everything = inputs()
    output = model(**{name: everything[name] for letter in given for name in names[letter]})
    embeds = {"p": output.point_embeds, "t": output.text_embeds, "i": output.image_embeds}
    for letter, embed in embeds.items():
        if letter in given:
            assert embed.shape == (3, PROJECTION_DIM) and embed.dtype == torch.float32
            torch.testing.assert_close(embed.norm(dim=-1), torch.ones(3))
        else:
            assert embed is None
    assert (output.logits_per_point_text is not None) == ("p" in given and "t" in given)
    assert (output.logits_per_point_image is not None) == ("p" in given and "i" in given)
    assert output.loss is None


def test_nothing_given_is_refused(model: Ulip2Model) -> None:
    with pytest.raises(ValueError, match="Nothing to embed"):
        model()
    with pytest.raises(ValueError, match="needs point_values"):
        model(pixel_values=inputs()["pixel_values"], return_loss=True)
    with pytest.raises(ValueError, match="pass text_embeds"):
        model(point_values=clouds(2), return_loss=True)


def test_logits_are_scaled_cosines_with_points_in_rows(model: Ulip2Model) -> None:
    everything = inputs(4)
    output = model(
        point_values=everything["point_values"],
        input_ids=everything["input_ids"][:3],
        pixel_values=everything["pixel_values"][:2],
    )
    cosines = F.cosine_similarity(output.point_embeds[:, None], output.text_embeds[None], dim=-1)
    torch.testing.assert_close(output.logits_per_point_text, cosines / 0.07, atol=1e-4, rtol=1e-4)
    assert output.logits_per_point_image.shape == (4, 2)


def test_features_have_the_names_and_meaning_of_transformers(model: Ulip2Model) -> None:
    everything = inputs()
    output = model(**everything)
    features = {
        "point_embeds": model.get_point_features(everything["point_values"]),
        "text_embeds": model.get_text_features(everything["input_ids"], everything["attention_mask"]),
        "image_embeds": model.get_image_features(everything["pixel_values"]),
    }
    for name, feature in features.items():
        assert not torch.allclose(feature.pooler_output.norm(dim=-1), torch.ones(3))
        torch.testing.assert_close(F.normalize(feature.pooler_output, dim=-1), output[name])


def test_a_batch_gives_what_its_samples_give_one_by_one(model: Ulip2Model) -> None:
    everything = inputs(3, captions=2)
    together = model(**everything)
    for i in range(3):
        alone = model(**{name: value[i : i + 1] for name, value in everything.items()})
        for name in ("point_embeds", "text_embeds", "image_embeds"):
            torch.testing.assert_close(alone[name][0], together[name][i], atol=1e-5, rtol=1e-4)


# --- captions --------------------------------------------------------------------------------------------------------


def test_several_captions_a_shape_are_averaged(model: Ulip2Model) -> None:
    everything = inputs(2, captions=3)
    ids, mask = everything["input_ids"], everything["attention_mask"]
    singles = torch.stack([F.normalize(model.get_text_features(ids[:, k]).pooler_output) for k in range(3)])
    expected = F.normalize(singles.mean(dim=0))
    torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).text_embeds, expected)
    torch.testing.assert_close(model(input_ids=ids).text_embeds, expected)


def test_captions_that_are_not_there(model: Ulip2Model) -> None:
    everything = inputs(2, captions=3)
    ids, mask = everything["input_ids"], everything["attention_mask"].clone()
    present = torch.tensor([[True, False, True], [True, True, True]])
    mask[0, 1] = 0
    expected = model(input_ids=ids[:1, [0, 2]]).text_embeds[0]
    for masks in ({"attention_mask": mask}, {"text_mask": present}, {"attention_mask": mask, "text_mask": present}):
        torch.testing.assert_close(model(input_ids=ids, **masks).text_embeds[0], expected)
    features = torch.stack([model.get_text_features(ids[:, k]).pooler_output for k in range(3)], dim=1)
    torch.testing.assert_close(model(text_embeds=features, text_mask=present).text_embeds[0], expected)


def test_precomputed_features_replace_the_tower(model: Ulip2Model) -> None:
    everything = inputs(3, captions=2)
    expected = model(**everything, return_loss=True)
    ids = everything["input_ids"]
    text_embeds = torch.stack([model.get_text_features(ids[:, k]).pooler_output for k in range(2)], dim=1)
    image_embeds = model.get_image_features(everything["pixel_values"]).pooler_output
    without_tower = make_model()
    output = without_tower(
        point_values=everything["point_values"],
        text_embeds=text_embeds.half(),
        image_embeds=image_embeds,
        return_loss=True,
    )
    torch.testing.assert_close(output.loss, expected.loss, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(output.image_embeds, expected.image_embeds)


def test_features_of_another_width_are_refused(model: Ulip2Model) -> None:
    with pytest.raises(ValueError, match="text_embeds have 7 channels.*projection_dim = 20"):
        model(point_values=clouds(2), text_embeds=torch.randn(2, 7))
    other = make_model()
    other.set_clip_model(tower(projection_dim=8))
    with pytest.raises(ValueError, match="the tower's image features have 8 channels"):
        other(pixel_values=torch.rand(1, 3, 16, 16))


# --- precision and training ------------------------------------------------------------------------------------------


def test_bf16_autocast(model: Ulip2Model) -> None:
    exact = model(**inputs(), return_loss=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**inputs(), return_loss=True)
    assert output.loss.dtype == output.point_embeds.dtype == output.logits_per_point_text.dtype == torch.float32
    assert F.cosine_similarity(output.point_embeds, exact.point_embeds).min() > 0.999
    torch.testing.assert_close(output.loss, exact.loss, atol=0.1, rtol=0.05)


def test_training_reaches_the_encoder_the_projection_and_the_scale_and_nothing_else(tower_dir: Path) -> None:
    for include_towers in (False, True):
        model = make_model(tower_dir)
        if include_towers:
            model.save_pretrained(tower_dir / "embedded", include_towers=True)
            model = Ulip2Model.from_pretrained(tower_dir / "embedded")
        model.gradient_checkpointing_enable()
        model.train()
        clip_model = model.get_clip_model()
        assert not clip_model.training and all(not m.training for m in clip_model.modules())
        model(**inputs(), return_loss=True).loss.backward()
        assert all(parameter.grad is None for parameter in clip_model.parameters())
        ours = {name: p for name, p in model.named_parameters() if not name.startswith("clip_model.")}
        assert all(p.grad is not None and p.grad.isfinite().all() for p in ours.values())
        assert model.logit_scale.grad.abs() > 0 and model.point_projection.weight.grad.abs().max() > 0


def test_the_logit_scale_is_clamped_like_the_original() -> None:
    model = make_model()
    assert model.logit_scale.item() == pytest.approx(2.6592600)
    for value, expected in ((9.0, 4.6052), (-1.0, 0.0), (3.0, 3.0)):
        model.logit_scale.data.fill_(value)
        model.clamp_logit_scale()
        assert model.logit_scale.item() == pytest.approx(expected)


# --- the tower -------------------------------------------------------------------------------------------------------


def test_the_tower_is_loaded_when_first_needed_and_no_part_of_the_model(
    tower_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = [], AutoModel.from_pretrained
    monkeypatch.setattr(
        AutoModel, "from_pretrained", lambda name, **kwargs: loaded.append(name) or load(name, **kwargs)
    )
    model = make_model(tower_dir)
    model(point_values=clouds(2), text_embeds=torch.randn(2, PROJECTION_DIM))
    assert loaded == []
    model(**inputs())
    model(**inputs())
    assert loaded == [str(tower_dir)]
    assert not any("clip" in name for name in [*model.state_dict(), *dict(model.named_modules())])


def test_without_a_tower_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set config.clip_name_or_path"):
        make_model()(pixel_values=torch.rand(1, 3, 16, 16))
    lost = make_model(tmp_path / "gone")
    assert lost(point_values=clouds(1)).point_embeds is not None
    with pytest.raises(OSError, match="gone.*pass clip_name_or_path"):
        lost(pixel_values=torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match="Ulip2PointModel is no image-text tower"):
        lost.set_clip_model(Ulip2PointModel(lost.config))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementation_reaches_encoder_and_embedded_tower(
    tower_dir: Path, tmp_path: Path, implementation: str
) -> None:
    make_model(tower_dir).save_pretrained(tmp_path, include_towers=True)
    model = Ulip2Model.from_pretrained(tmp_path, attn_implementation=implementation)
    assert model.point_model.config._attn_implementation == implementation
    assert model.get_clip_model().text_model.config._attn_implementation == implementation
    torch.testing.assert_close(model(**inputs()).point_embeds, make_model()(point_values=clouds(3)).point_embeds)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def same_outputs(one: Ulip2Model, other: Ulip2Model) -> None:
    expected, found = one(**inputs(), return_loss=True), other(**inputs(), return_loss=True)
    for name in ("loss", "point_embeds", "text_embeds", "image_embeds"):
        assert torch.equal(found[name], expected[name]), name


def test_checkpoint_without_tower(model: Ulip2Model, tower_dir: Path, tmp_path: Path) -> None:
    model(**inputs())  # the tower is in memory
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is Ulip2Model and loaded.config.clip_config is None
    assert set(loaded.state_dict()) == set(model.state_dict())
    same_outputs(model, loaded)


def test_checkpoint_with_tower_needs_nothing_else(tower_dir: Path, tmp_path: Path) -> None:
    model = make_model(tower_dir)
    model.save_pretrained(tmp_path, include_towers=True)
    assert model.config.clip_config is None and "clip_model" not in dict(model.named_children())
    loaded = Ulip2Model.from_pretrained(tmp_path, clip_name_or_path="nowhere")
    same_outputs(model, loaded)
    assert all(not p.requires_grad for p in loaded.get_clip_model().parameters())
    assert {name.split(".")[0] for name in loaded.state_dict()} == {
        "clip_model",
        "logit_scale",
        "point_model",
        "point_projection",
    }


def test_an_embedded_tower_with_a_name_is_left_out_again_and_one_without_is_kept(
    tower_dir: Path, tmp_path: Path
) -> None:
    make_model(tower_dir).save_pretrained(tmp_path / "with", include_towers=True)
    model = Ulip2Model.from_pretrained(tmp_path / "with")
    model.save_pretrained(tmp_path / "named")
    assert "clip_model" in dict(model.named_children())
    named = Ulip2Model.from_pretrained(tmp_path / "named")
    assert named.config.clip_config is None
    same_outputs(model, named)
    model.config.clip_name_or_path = None
    model.save_pretrained(tmp_path / "nameless")
    nameless = Ulip2Model.from_pretrained(tmp_path / "nameless")
    assert nameless.config.clip_config is not None
    same_outputs(model, nameless)


def test_a_tower_from_memory_is_not_lost(tmp_path: Path) -> None:
    model = make_model()
    model.set_clip_model(tower())
    model.save_pretrained(tmp_path, state_dict=model.state_dict())  # as Trainer does
    same_outputs(model, Ulip2Model.from_pretrained(tmp_path))


def test_point_models_load_from_any_checkpoint(tower_dir: Path, tmp_path: Path) -> None:
    model = make_model(tower_dir)
    model.save_pretrained(tmp_path / "whole", include_towers=True)
    expected = model.get_point_features(clouds(2))
    encoder = Ulip2PointModel.from_pretrained(tmp_path / "whole")
    assert torch.equal(encoder(clouds(2)).tokens, expected.last_hidden_state)
    projected = Ulip2PointModelWithProjection.from_pretrained(tmp_path / "whole")
    assert torch.equal(projected(clouds(2)).point_embeds, expected.pooler_output)
    # what they save promises no tower, and loads as they do
    projected.save_pretrained(tmp_path / "projected")
    again = Ulip2PointModelWithProjection.from_pretrained(tmp_path / "projected")
    assert again.config.clip_config is None
    assert torch.equal(again(clouds(2)).point_embeds, expected.pooler_output)


def test_tensors_missing_from_a_checkpoint_are_initialized(tmp_path: Path) -> None:
    model = make_model()
    kept = {name: value for name, value in model.state_dict().items() if name.startswith("point_model.")}
    model.save_pretrained(tmp_path, state_dict=kept)
    loaded = Ulip2Model.from_pretrained(tmp_path)
    assert loaded.logit_scale.item() == pytest.approx(2.6592600)
    assert loaded.point_projection.weight.std().item() == pytest.approx(512**-0.5, rel=0.2)


def test_official_size_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = Ulip2PointModelWithProjection(Ulip2Config())
    assert model.num_parameters() == 32_499_072 + 768 * 1280
    assert model.config.point_config.model_type == "ulip2_pointbert"


# --- encoders of one's own -------------------------------------------------------------------------------------------


class MeanConfig(PreTrainedConfig):
    model_type = "test_mean_encoder"
    in_channels: int = 6
    output_dim: int = 5


class MeanModel(PreTrainedModel):
    """The simplest encoder that keeps the contract: a linear layer, averaged."""

    config_class = MeanConfig

    def __init__(self, config: MeanConfig):
        super().__init__(config)
        self.linear = nn.Linear(config.in_channels, config.output_dim)
        self.post_init()

    def forward(
        self, point_values: torch.Tensor, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> PointEncoderOutput:
        tokens = self.linear(point_values)
        return PointEncoderOutput(tokens=tokens, pooled=tokens.mean(dim=1), centers=point_values[..., :3])


def test_a_registered_encoder_works_from_configuration_to_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="known point encoders are .*register_point_encoder"):
        Ulip2Config(point_config={"model_type": "test_mean_encoder"})
    register_point_encoder("test_mean_encoder", MeanConfig, MeanModel)
    try:
        config = Ulip2Config(point_config={"model_type": "test_mean_encoder", "output_dim": 9}, projection_dim=4)
        model = Ulip2Model(config).eval()
        model.save_pretrained(tmp_path)
        loaded = Ulip2Model.from_pretrained(tmp_path)
        assert isinstance(loaded.point_model, MeanModel) and loaded.point_projection.in_features == 9
        assert torch.equal(loaded(point_values=clouds(2)).point_embeds, model(point_values=clouds(2)).point_embeds)
    finally:
        del POINT_ENCODERS["test_mean_encoder"]


def test_registering_is_checked() -> None:
    with pytest.raises(ValueError, match="'test_mean_encoder', not 'other'"):
        register_point_encoder("other", MeanConfig, MeanModel)

    class Impostor(PreTrainedConfig):
        model_type = "ulip2_pointbert"

    with pytest.raises(ValueError, match="already registered with PointBertConfig"):
        register_point_encoder("ulip2_pointbert", Impostor, MeanModel)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 25}, "multiple of num_attention_heads"),
        ({"in_channels": 2}, "at least 3"),
        ({"num_groups": 0}, "num_groups must be at least 1"),
    ],
)
def test_impossible_configurations_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ulip2Config(point_config=POINT_CONFIG | fields)
