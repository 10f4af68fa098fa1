"""open_clip -> CLIPModel: the same features, names and shapes; what cannot be expressed is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoProcessor, CLIPConfig, CLIPModel

from modeling_ulip2.towers import clip_from_open_clip, clip_from_open_clip_model, open_clip_state_dict_to_clip
from modeling_ulip2.towers.open_clip import clip_config_from_open_clip_model, main
from tests.towers.world import open_clip_config

open_clip = pytest.importorskip("open_clip")

TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


def build(kind: type[torch.nn.Module], **changes: Any) -> Any:
    """A random model; norms and biases, which open_clip starts at one and zero, are random too."""
    torch.manual_seed(0)
    model = kind(**open_clip_config(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def inputs(model: Any) -> tuple[Tensor, Tensor]:
    """Images, and token ids without a fixed end token: the last one is found by open_clip's own rule alone."""
    generator = torch.Generator().manual_seed(1)
    size, length = model.visual.image_size[0], model.context_length
    input_ids = torch.randint(0, 99, (5, length), generator=generator)
    return torch.randn(3, 3, size, size, generator=generator), input_ids


@torch.no_grad()
def assert_same_features(model: Any, clip: CLIPModel, pixel_values: Tensor, input_ids: Tensor) -> None:
    image, text = clip.get_image_features(pixel_values), clip.get_text_features(input_ids)
    torch.testing.assert_close(image.pooler_output, model.encode_image(pixel_values), **TOLERANCE)
    torch.testing.assert_close(text.pooler_output, model.encode_text(input_ids), **TOLERANCE)


EXPRESSIBLE: dict[str, dict[str, Any]] = {
    "gelu": {"quick_gelu": False},
    "quick_gelu": {"quick_gelu": True},
    "tanh_gelu": {"vision_cfg": {"act_kwargs": {"approximate": "tanh"}}},
    "mlp_ratios": {"vision_cfg": {"mlp_ratio": 4.9231}, "text_cfg": {"mlp_ratio": 2.0}},
    "head_width": {"vision_cfg": {"head_width": 32}, "text_cfg": {"heads": 4}},
    "norm_eps": {"vision_cfg": {"norm_kwargs": {"eps": 1e-2}}, "text_cfg": {"norm_kwargs": {"eps": 1e-3}}},
    "sin_cos_positions": {"vision_cfg": {"pos_embed_type": "sin_cos_2d"}},
    "norm_after_pool": {"vision_cfg": {"final_ln_after_pool": True}},
    "eos_pooling": {"text_cfg": {"pool_type": "eos", "eos_id": 7}},
    "logit_scale_as_vector": {"nonscalar_logit_scale": True},
}


@pytest.mark.parametrize("kind", [open_clip.CLIP, open_clip.CustomTextCLIP])
@pytest.mark.parametrize("changes", EXPRESSIBLE.values(), ids=EXPRESSIBLE.keys())
def test_features_equal_open_clips(kind: type[torch.nn.Module], changes: dict[str, Any]) -> None:
    model = build(kind, **changes)
    clip = clip_from_open_clip_model(model)
    pixel_values, input_ids = inputs(model)
    input_ids[:, 5] = 7
    assert_same_features(model, clip, pixel_values, input_ids)
    assert clip.logit_scale.item() == model.logit_scale.item()
    assert clip.config.projection_dim == 24


def test_published_ulip2_layout() -> None:
    """The sizes of the recorded ULIP-2 wrapper: a narrow open_clip model with the embedding of ViT-bigG-14."""
    text = {"context_length": 16, "vocab_size": 100, "width": 32, "heads": 2, "layers": 2}
    vision = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
    model = build(open_clip.CLIP, embed_dim=1280, text_cfg=text, vision_cfg=vision)
    clip = clip_from_open_clip_model(model)
    assert_same_features(model, clip, *inputs(model))

    checkpoint = {f"module.open_clip_model.{name}": value for name, value in model.state_dict().items()}
    checkpoint["module.pc_projection"] = torch.zeros(3)
    converted = open_clip_state_dict_to_clip(checkpoint, prefix="module.open_clip_model.")
    again = CLIPModel(clip.config).eval()
    again.load_state_dict(converted)
    assert_same_features(model, again, *inputs(model))


@torch.no_grad()
def test_end_of_text_is_the_highest_id_at_any_length() -> None:
    model = build(open_clip.CLIP)
    clip = clip_from_open_clip_model(model)
    input_ids = torch.tensor([[98, 5, 6, 99, 0, 0, 0], [98, 4, 99, 0, 0, 0, 0], [98, 1, 2, 3, 4, 5, 99]])
    expected = model.encode_text(torch.nn.functional.pad(input_ids, (0, 9)))
    mask = (input_ids != 0).long()
    torch.testing.assert_close(clip.get_text_features(input_ids).pooler_output, expected, **TOLERANCE)
    torch.testing.assert_close(clip.get_text_features(input_ids, mask).pooler_output, expected, **TOLERANCE)


def test_big_g_by_names_and_shapes() -> None:
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-bigG-14"))
        config = clip_config_from_open_clip_model(model)
        clip = CLIPModel(config)
    converted = open_clip_state_dict_to_clip(model.state_dict())
    assert {name: value.shape for name, value in converted.items()} == {
        name: value.shape for name, value in clip.state_dict().items()
    }
    assert sum(parameter.numel() for parameter in clip.parameters()) == 2_539_567_105
    vision, text = config.vision_config, config.text_config
    assert (vision.hidden_size, vision.num_attention_heads, vision.intermediate_size) == (1664, 16, 8192)
    assert (vision.num_hidden_layers, vision.patch_size, vision.hidden_act) == (48, 14, "gelu")
    assert (text.hidden_size, text.num_attention_heads, text.num_hidden_layers) == (1280, 20, 32)
    assert config.projection_dim == 1280


REFUSED: dict[str, dict[str, Any]] = {
    "attentional_pool": {"vision_cfg": {"attentional_pool": True}},
    "no_ln_pre": {"vision_cfg": {"no_ln_pre": True}},
    "patch_dropout": {"vision_cfg": {"patch_dropout": 0.5}},
    "vision_cfg.pool_type='avg'": {"vision_cfg": {"pool_type": "avg"}},
    "vision_cfg.ls_init_value": {"vision_cfg": {"ls_init_value": 0.1}},
    "text_cfg.ls_init_value": {"text_cfg": {"ls_init_value": 0.1}},
    "qk_norm": {"text_cfg": {"qk_norm": True}},
    "image_size": {"vision_cfg": {"image_size": (32, 40)}},
    "vision_cfg.output_tokens": {"vision_cfg": {"output_tokens": True}},
    "vision_cfg.layers": {"vision_cfg": {"layers": [1, 1, 1, 1]}},
    "timm_model_name": {"vision_cfg": {"timm_model_name": "test_vit", "image_size": 160}},
    "no_causal_mask": {"text_cfg": {"no_causal_mask": True}},
    "embed_cls": {"text_cfg": {"embed_cls": True}},
    "text_cfg.pool_type='last'": {"text_cfg": {"pool_type": "last"}},
    "eos_id": {"text_cfg": {"pool_type": "eos", "eos_id": 2}},
    "proj_bias": {"text_cfg": {"proj_bias": True}},
    "proj_type": {"text_cfg": {"proj_type": "none"}},
    "SigLIP": {"init_logit_bias": -10.0},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_clip_cannot_express_is_refused_by_name(name: str) -> None:
    model = build(open_clip.CLIP, **REFUSED[name])
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        clip_from_open_clip_model(model)


def test_coca_is_refused() -> None:
    config = open_clip_config(text_cfg={"embed_cls": True, "output_tokens": True})
    decoder = {"layers": 1, "heads": 2, "width": 16, "context_length": 16, "attn_pooler_heads": 2}
    config["vision_cfg"] |= {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    model = open_clip.CoCa(**config, multimodal_cfg=decoder)
    with pytest.raises(ValueError, match="CoCa"):
        clip_from_open_clip_model(model)


def test_unknown_and_absent_names_are_errors() -> None:
    state = build(open_clip.CLIP).state_dict()
    with pytest.raises(ValueError, match="visual.surprise"):
        open_clip_state_dict_to_clip(state | {"visual.surprise": torch.zeros(1)})
    with pytest.raises(ValueError, match="module."):
        open_clip_state_dict_to_clip(state, prefix="module.")
    assert "attn_mask" not in open_clip_state_dict_to_clip(state | {"attn_mask": torch.zeros(1)})


def test_dtype_is_kept() -> None:
    clip = clip_from_open_clip_model(build(open_clip.CLIP).to(torch.bfloat16))
    assert {parameter.dtype for parameter in clip.parameters()} == {torch.bfloat16}


def test_by_name_and_by_command(open_clip_name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`local-dir:` is open_clip's own way to name a model that lies in a folder."""
    model = open_clip.create_model(open_clip_name).eval()
    clip = clip_from_open_clip(open_clip_name)
    pixel_values, input_ids = inputs(model)
    assert_same_features(model, clip, pixel_values, input_ids)
    assert clip.config.vision_config.hidden_act == "quick_gelu"

    main([open_clip_name, "given-by-the-folder", str(tmp_path / "saved")])
    assert "saved in" in capsys.readouterr().out
    loaded = AutoModel.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, CLIPModel) and isinstance(loaded.config, CLIPConfig)
    assert_same_features(model, loaded, pixel_values, input_ids)
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert processor.tokenizer.model_max_length == 20


def test_missing_open_clip_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ImportError, match=r'pip install "modeling-ulip2\[openclip\]"'):
        clip_from_open_clip("ViT-B-32")
