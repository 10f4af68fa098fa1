"""OpenCLIP weights in transformers' `CLIPModel`: `python -m modeling_ulip2.towers.open_clip MODEL TAG OUTPUT_DIR`.

OpenCLIP is where tower weights come from; transformers' CLIP classes are how they run and are saved. An option that
those classes cannot express is refused by name, never dropped.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPProcessor

from modeling_ulip2.utils.packages import require_package

from .open_clip_processing import image_processor_from_open_clip, tokenizer_from_open_clip

# transformers' name of open_clip's argmax pooling: with this value `CLIPTextModel` takes the highest token id, which
# also holds where a text carries no end token or the vocabulary was extended.
_ARGMAX_EOS_TOKEN_ID = 2

_RENAMED = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",  # sic
    "visual.ln_post": "vision_model.post_layernorm",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection.weight": "text_projection.weight",
}
# These multiply from the right in open_clip: (width, embed_dim) becomes a linear layer's (embed_dim, width).
_TRANSPOSED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_SCHEMAS = ("hf-hub:", "local-dir:")
# Constants that old checkpoints store beside the weights.
_IGNORED = {"attn_mask", "input_resolution", "context_length", "vocab_size"}


def activation_of_tag(model_name: str, pretrained: str | None) -> dict[str, bool]:
    """`create_model`'s option for the activation that a tag was trained with; {} where open_clip lists no such tag.

    open_clip alone takes the model's: it would run `ViT-L-14` with the tag `openai` through another than OpenAI did.
    """
    open_clip = require_package("open_clip", extra="openclip")
    released = open_clip.get_pretrained_cfg(model_name, pretrained or "")
    return {"force_quick_gelu": True} if released.get("quick_gelu") else {}


def clip_from_open_clip(model_name: str, pretrained: str | None = None, **kwargs: Any) -> CLIPModel:
    """Loads an open_clip model and converts it.

    Args:
        model_name: as open_clip knows it, such as `ViT-bigG-14`; also `hf-hub:…` and `local-dir:…`.
        pretrained: tag or checkpoint file, such as `laion2b_s39b_b160k`; None gives random weights. A tag decides on
            the activation.
        kwargs: of `open_clip.create_model`.

    Raises:
        ImportError: open_clip is not installed.
        ValueError: the model has an option that `CLIPModel` cannot express.
    """
    open_clip = require_package("open_clip", extra="openclip")
    model = open_clip.create_model(model_name, pretrained, **activation_of_tag(model_name, pretrained) | kwargs)
    return clip_from_open_clip_model(model)


def clip_from_open_clip_model(model: nn.Module) -> CLIPModel:
    """Converts an open_clip model instance; features equal its own. The weights keep their dtype and device."""
    config = clip_config_from_open_clip_model(model)
    state = open_clip_state_dict_to_clip(model.state_dict())
    dtype = state["visual_projection.weight"].dtype
    # the usual loading, so that nothing is allocated twice
    loaded: Any = CLIPModel.from_pretrained(
        None, config=config, state_dict=state, dtype=dtype, output_loading_info=True
    )
    clip, info = loaded
    if any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise ValueError(f"open_clip's weights do not fit the CLIPModel made for them: {info}")
    return clip.to(state["visual_projection.weight"].device).eval()


def create_open_clip(name: str) -> tuple[Any, Any, Any]:
    """The open_clip model, evaluation transform and tokenizer called `MODEL/TAG`, `hf-hub:…` or `local-dir:…`.

    Raises:
        ImportError: open_clip is not installed.
        ValueError: no such model or tag, or no tag.
        OSError: the weights cannot be fetched.
    """
    open_clip = require_package("open_clip", extra="openclip")
    model_name, _, tag = (name, "", "") if name.startswith(_SCHEMAS) else name.partition("/")
    if not name.startswith(_SCHEMAS):
        tags = open_clip.list_pretrained_tags_by_model(model_name)
        if model_name not in open_clip.list_models():
            raise ValueError(f"open_clip has no model {model_name!r}; open_clip.list_models() names them")
        if tag not in tags and not Path(tag).is_file():
            raise ValueError(f"{model_name!r} needs a tag after '/', one of {', '.join(tags)}; got {tag!r}")
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            model_name, pretrained=tag or None, **activation_of_tag(model_name, tag)
        )
    except RuntimeError as error:  # open_clip's name for a download that failed
        raise OSError(f"open_clip cannot load {name!r}: {error}") from error
    return model, transform, open_clip.get_tokenizer(model_name)


def clip_from_open_clip_name(name: str, dtype: torch.dtype | None = None) -> CLIPModel:
    """The `CLIPModel` made of what `create_open_clip(name)` loads; float32 unless asked.

    Raises:
        ValueError: the model has an option that `CLIPModel` cannot express; or as in `create_open_clip`.
    """
    clip = clip_from_open_clip_model(create_open_clip(name)[0])
    return clip.to(dtype if isinstance(dtype, torch.dtype) else torch.float32)  # type: ignore[arg-type]


def save_clip_from_open_clip(
    model_name: str, output_dir: str | Path, pretrained: str | None = None, **kwargs: Any
) -> None:
    """Saves the converted model, its tokenizer and its image processor in a folder for the Auto classes."""
    open_clip = require_package("open_clip", extra="openclip")
    Path(output_dir).mkdir(parents=True, exist_ok=True)  # fails before the work if it cannot be written
    model = open_clip.create_model(model_name, pretrained, **activation_of_tag(model_name, pretrained) | kwargs)
    tokenizer = tokenizer_from_open_clip(open_clip.get_tokenizer(model_name))
    image_processor = image_processor_from_open_clip(model.visual.preprocess_cfg)
    clip_from_open_clip_model(model).save_pretrained(output_dir)
    CLIPProcessor(image_processor, tokenizer).save_pretrained(output_dir)


def open_clip_state_dict_to_clip(state_dict: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Names of open_clip -> names of `CLIPModel`; values change only in layout.

    Args:
        state_dict: of an open_clip `CLIP` or `CustomTextCLIP`, or a checkpoint that contains one.
        prefix: where the open_clip model lives in it, such as `module.open_clip_model.`; the rest is left out.

    Raises:
        ValueError: a name under the prefix is not understood.
    """
    converted: dict[str, Tensor] = {}
    unknown = []
    for full_name, value in state_dict.items():
        if not full_name.startswith(prefix):
            continue
        name = full_name.removeprefix(prefix).removeprefix("text.")
        if name in _IGNORED:
            continue
        entries = list(_convert(name, value))
        unknown += [] if entries else [full_name]
        converted.update(entries)
    if unknown or not converted:
        found = f"not understood: {', '.join(unknown[:5])}" if unknown else f"no name starts with {prefix!r}"
        raise ValueError(f"this is not the state dict of an open_clip ViT CLIP; {found}")
    return converted


def _convert(name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The entries of `CLIPModel` that one entry of open_clip becomes; none where its name is not understood."""
    module, _, leaf = name.rpartition(".")
    if name == "logit_scale":
        yield name, value.reshape(())  # some models store it as (1,)
    elif name in _TRANSPOSED:
        yield _TRANSPOSED[name], value.T.contiguous()
    elif name in _RENAMED:
        yield _RENAMED[name], value
    elif module in _RENAMED:
        yield f"{_RENAMED[module]}.{leaf}", value
    elif match := _BLOCK.fullmatch(name):
        layer = f"{'vision_model' if match[1] else 'text_model'}.encoder.layers.{match[2]}"
        module, _, leaf = match[3].rpartition(".")
        if module in _IN_BLOCK:
            yield f"{layer}.{_IN_BLOCK[module]}.{leaf}", value
        elif match[3] in ("attn.in_proj_weight", "attn.in_proj_bias"):
            for projection, part in zip("qkv", value.chunk(3), strict=True):
                yield f"{layer}.self_attn.{projection}_proj.{leaf.removeprefix('in_proj_')}", part.clone()


def clip_config_from_open_clip_model(model: nn.Module) -> CLIPConfig:
    """Reads the configuration off a model instance, whose weights may be on the meta device.

    Raises:
        ValueError: the model has an option that `CLIPModel` cannot express.
    """
    visual: Any = model.visual
    text: Any = getattr(model, "text", model)
    _refuse(_model_options(model) | _vision_options(visual) | _text_options(model, text))
    embed_dim = visual.proj.shape[1]
    vocab_size, text_width = text.token_embedding.weight.shape
    pool_type, eos_id = _text_pooling(model, text)
    text_config = {
        "vocab_size": vocab_size,
        "hidden_size": text_width,
        "projection_dim": embed_dim,
        "max_position_embeddings": text.positional_embedding.shape[0],
        "eos_token_id": _ARGMAX_EOS_TOKEN_ID if pool_type == "argmax" else eos_id,
        "bos_token_id": vocab_size - 2,
        "pad_token_id": 0,
        **_encoder_config(text.transformer, text.ln_final),
    }
    vision_config = {
        "hidden_size": visual.conv1.out_channels,
        "projection_dim": embed_dim,
        "image_size": visual.image_size[0],
        "patch_size": visual.patch_size[0],
        **_encoder_config(visual.transformer, visual.ln_post),
    }
    return CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=embed_dim)


def _encoder_config(transformer: Any, norm: nn.LayerNorm) -> dict[str, Any]:
    block = transformer.resblocks[0]
    return {
        "num_hidden_layers": len(transformer.resblocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.c_fc.out_features,
        "hidden_act": _activation(block.mlp.gelu),
        "layer_norm_eps": norm.eps,
    }


def _activation(module: nn.Module) -> str | None:
    if type(module).__name__ == "QuickGELU":
        return "quick_gelu"
    if isinstance(module, nn.GELU):
        return {"none": "gelu", "tanh": "gelu_pytorch_tanh"}.get(module.approximate)
    return None


def _text_pooling(model: Any, text: Any) -> tuple[str, int]:
    """Pooling and end-token id; `CLIP` keeps them under other names than the text tower of `CustomTextCLIP`."""
    if text is model:
        return model.text_pool_type, model.text_eos_id
    return text.pool_type, text.eos_id


def _model_options(model: Any) -> dict[str, bool]:
    return {
        "multimodal_cfg (CoCa)": hasattr(model, "text_decoder"),
        "init_logit_bias (SigLIP)": getattr(model, "logit_bias", None) is not None,
    }


def _vision_options(visual: Any) -> dict[str, bool]:
    kind = type(visual).__name__
    if kind != "VisionTransformer":
        names = {"TimmModel": "vision_cfg.timm_model_name", "ModifiedResNet": "vision_cfg.layers (ResNet)"}
        return {names.get(kind, f"the image tower {kind}"): True}
    return {
        "vision_cfg.attentional_pool": visual.attn_pool is not None,
        "vision_cfg.no_ln_pre": isinstance(visual.ln_pre, nn.Identity),
        "vision_cfg.patch_dropout": not isinstance(visual.patch_dropout, nn.Identity),
        f"vision_cfg.pool_type={visual.pool_type!r}": visual.attn_pool is None and visual.pool_type != "tok",
        "vision_cfg.output_tokens": visual.output_tokens,
        "vision_cfg.image_size (not square)": len(set(visual.image_size)) > 1,
        "vision_cfg.patch_size (not square)": len(set(visual.patch_size)) > 1,
        "vision_cfg without projection": visual.proj is None,
    } | _transformer_options("vision_cfg", visual.transformer)


def _text_options(model: Any, text: Any) -> dict[str, bool]:
    if text is not model and type(text).__name__ != "TextTransformer":
        return {"text_cfg.hf_model_name" if hasattr(text, "pooler") else f"the text tower {type(text).__name__}": True}
    pool_type, eos_id = _text_pooling(model, text)
    projection = text.text_projection
    return {
        "text_cfg.no_causal_mask": text.attn_mask is None,
        "text_cfg.embed_cls": text.positional_embedding.shape[0] != text.context_length,
        f"text_cfg.pool_type={pool_type!r}": pool_type not in ("argmax", "eos"),
        f"text_cfg.eos_id={eos_id}": pool_type == "eos" and eos_id == _ARGMAX_EOS_TOKEN_ID,
        "text_cfg.proj_type='none'": projection is None,
        "text_cfg.proj_bias": isinstance(projection, nn.Linear) and projection.bias is not None,
        "text_cfg.output_tokens": getattr(text, "output_tokens", False),
    } | _transformer_options("text_cfg", text.transformer)


def _transformer_options(name: str, transformer: Any) -> dict[str, bool]:
    block = transformer.resblocks[0]
    if type(block).__name__ != "ResidualAttentionBlock":
        return {f"{name}.block_type (qk_norm, scaled_cosine_attn, scale_heads, scale_attn, scale_fc)": True}
    return {
        f"{name}.ls_init_value (layer scale)": not isinstance(block.ls_1, nn.Identity),
        f"{name}.act_kwargs": _activation(block.mlp.gelu) is None,
    }


def _refuse(options: dict[str, bool]) -> None:
    found = [name for name, present in options.items() if present]
    if found:
        raise ValueError(f"transformers' CLIPModel cannot express this open_clip model: {'; '.join(found)}")


def main(arguments: list[str] | None = None) -> None:
    """Command line: converts an open_clip model with its tokenizer and image processor to a folder."""
    parser = argparse.ArgumentParser(prog="python -m modeling_ulip2.towers.open_clip", description=main.__doc__)
    parser.add_argument("model_name", help="such as ViT-bigG-14")
    parser.add_argument("pretrained", help="tag or checkpoint file, such as laion2b_s39b_b160k")
    parser.add_argument("output_dir", type=Path)
    options = parser.parse_args(arguments)
    with torch.no_grad():
        save_clip_from_open_clip(options.model_name, options.output_dir, options.pretrained)
    print(f"{options.model_name} ({options.pretrained}) saved in {options.output_dir}")


if __name__ == "__main__":
    main()
