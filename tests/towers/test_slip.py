"""SLIP as a dual encoder: interface, initial weights, names and shapes, bad input, remote code files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from modeling_ulip2.towers import SlipConfig, SlipModel
from modeling_ulip2.towers.slip import slip_config, slip_from_published, slip_image_processor, slip_tokenizer

CONFIG = dict(
    projection_dim=20,
    vocab_size=60,
    max_position_embeddings=12,
    text_hidden_size=16,
    text_num_hidden_layers=2,
    text_num_attention_heads=2,
    image_size=16,
    patch_size=8,
    vision_hidden_size=24,
    vision_num_hidden_layers=2,
    vision_num_attention_heads=3,
)
IDS = torch.tensor([[5, 9, 59, 0], [5, 7, 59, 0]])


@pytest.fixture(scope="module")
def model() -> SlipModel:
    torch.manual_seed(0)
    return SlipModel(SlipConfig(**CONFIG)).eval()


def test_compares_every_image_with_every_text(model: SlipModel) -> None:
    pixels = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        output = model(input_ids=IDS, pixel_values=pixels)
        text, image = model.get_text_features(IDS).pooler_output, model.get_image_features(pixels).pooler_output
    assert output.logits_per_image.shape == (3, 2) and torch.equal(output.logits_per_text, output.logits_per_image.T)
    cosines = torch.nn.functional.cosine_similarity(image[:, None], text[None], dim=-1)
    torch.testing.assert_close(output.logits_per_image, model.logit_scale.exp() * cosines)


def test_what_stands_behind_the_end_changes_nothing(model: SlipModel) -> None:
    padded = torch.nn.functional.pad(IDS, (0, 5), value=3)
    with torch.no_grad():
        expected = model.get_text_features(IDS).pooler_output
        torch.testing.assert_close(model.get_text_features(padded).pooler_output, expected)
        mask = (padded == 3).logical_not().long()
        torch.testing.assert_close(model.get_text_features(padded, attention_mask=mask).pooler_output, expected)
        # the first of several largest ids ends the text
        torch.testing.assert_close(
            model.get_text_features(torch.nn.functional.pad(IDS, (0, 2), value=59)[:, [0, 1, 2, 4, 5]]).pooler_output,
            expected,
        )


def test_attention_is_causal_in_texts(model: SlipModel) -> None:
    changed = IDS.clone()
    changed[:, 0] = 8
    with torch.no_grad():
        states = [model.get_text_features(ids).last_hidden_state for ids in (IDS, IDS[:, :2], changed)]
    torch.testing.assert_close(states[0][:, :2], states[1])
    assert not torch.allclose(states[0][:, 2], states[2][:, 2])


def test_attention_implementations_agree(model: SlipModel) -> None:
    eager = SlipModel._from_config(model.config, attn_implementation="eager").eval()
    eager.load_state_dict(model.state_dict())
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        for method, values in (("get_text_features", IDS), ("get_image_features", pixels)):
            ours, theirs = getattr(eager, method)(values).pooler_output, getattr(model, method)(values).pooler_output
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_saved_with_its_code_and_loaded(model: SlipModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob("*.py")} == {
        "clip_output.py",
        "configuration_slip.py",
        "modeling_slip.py",
        "private_apis.py",
        "transformer_layers.py",
    }
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is SlipModel
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_initial_weights_are_set(tmp_path: Path) -> None:
    """Also where a checkpoint lacks them, for which transformers builds the model without memory."""
    torch.manual_seed(0)
    small = SlipModel(SlipConfig(**CONFIG))
    small.save_pretrained(tmp_path, state_dict={"ln_final.bias": small.ln_final.bias.detach()})
    loaded = SlipModel.from_pretrained(tmp_path)
    for name, value in loaded.named_parameters():
        assert value.isfinite().all() and value.abs().max() < 5, name
    assert loaded.logit_scale.item() == pytest.approx(2.659, abs=1e-3)
    assert loaded.text_projection.std().item() == pytest.approx(16**-0.5, rel=0.2)


def test_configuration_is_read_from_the_weights(model: SlipModel) -> None:
    heads = {"text_num_attention_heads": 2, "vision_num_attention_heads": 3}
    config = slip_config(model.state_dict(), **heads)
    assert {name: getattr(config, name) for name in CONFIG} == CONFIG
    again = slip_from_published(model.state_dict(), config)
    assert again.visual.norm.weight.data_ptr() == model.visual.norm.weight.data_ptr()  # used as they are
    incomplete = {name: value for name, value in model.state_dict().items() if name != "visual.pos_embed"}
    with pytest.raises(ValueError, match=r"visual\.pos_embed"):
        slip_from_published(incomplete)


def test_defaults_are_the_published_size() -> None:
    with torch.device("meta"):
        published = SlipModel(SlipConfig())
    # the tower's part of ULIP-1's 171,872,001 parameters, and a logit scale of its own
    point_side = 21_858_816 + 768 * 512
    assert published.num_parameters() == 171_872_001 - point_side


@pytest.mark.parametrize(
    ("fields", "message"), [({"image_size": 17}, "image_size"), ({"text_num_attention_heads": 3}, "text_hidden_size")]
)
def test_impossible_configurations(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SlipConfig(**CONFIG | fields)


def test_wrong_input_is_refused(model: SlipModel) -> None:
    with pytest.raises(ValueError, match="length <= 12"):
        model.get_text_features(torch.zeros(1, 13, dtype=torch.long))
    with pytest.raises(ValueError, match="3, 16, 16"):
        model.get_image_features(torch.zeros(1, 3, 17, 16))


def test_tokenizer_and_image_processor() -> None:
    ids = slip_tokenizer()(["a photo of a chair."], return_tensors="pt")["input_ids"]
    assert ids.tolist() == [[49406, 320, 1125, 539, 320, 4269, 269, 49407]]
    processor = slip_image_processor(SlipConfig())
    pixels = processor(torch.full((3, 300, 260), 124, dtype=torch.uint8), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 224, 224)
    expected = (124 / 255 - 0.485) / 0.229
    torch.testing.assert_close(pixels[:, 0], torch.full((1, 224, 224), expected), atol=1e-4, rtol=0)
