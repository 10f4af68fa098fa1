"""A name for the function that a tower computes; it shows whether stored embeddings fit.

It is made of everything that an embedding depends on, in one canonical form: all weights, what the configuration says
and no weight shows (activation, heads, epsilons, pooling), the vocabulary and the ids of a few texts, the settings of
the image processor. It does not change with the file, the place, the device, float32 or bfloat16, or the library that
runs the model: an open_clip model and the `CLIPModel` made of it have one fingerprint.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

# Raised whenever the recipe changes, so that what an older one called equal is not taken for equal now.
RECIPE = 2
# Recipe 1: 64 values of each tensor and some settings of the image processor; no activation, no tokenizer.
_RECIPE_1 = re.compile(r"\w+-[0-9a-f]{16}")

# Parameters and buffers that no embedding depends on.
_NOT_IN_EMBEDDINGS = ("logit_scale", "logit_bias", "num_batches_tracked", "position_ids")
# Fields of a configuration that do not change what a model computes when it is not trained.
_NOT_IN_FUNCTION = re.compile(
    r"_?name_or_path|architectures|auto_map|model_type|(torch_)?dtype|transformers_version|id2label|label2id|num_labels"
    r"|label_names|initializer_\w+|logit_scale_init_value|problem_type|use_cache|return_dict|output_\w+|\w*dropout\w*"
    r"|_?attn_implementation\w*|tie_word_embeddings|tie_encoder_decoder|is_encoder_decoder|gradient_checkpointing"
    r"|chunk_size_feed_forward|_commit_hash|locked_weights"
)
# Of CLIP these are all: the rest shows in the weights, or does not count, such as token ids that nothing looks for.
_CLIP_TYPES = ("clip", "clip_text_model", "clip_vision_model")
_CLIP_FIELDS = ("hidden_act", "layer_norm_eps", "num_attention_heads", "patch_size")
# With this id `CLIPTextModel` takes the highest token id of a text instead.
_CLIP_HIGHEST = 2

# What changes pixels in transformers' image processors, and the switch without which it does not count.
_PIXEL_FIELDS: dict[str, str | None] = {
    "size": "do_resize",
    "resample": "do_resize",
    "default_to_square": "do_resize",
    "crop_size": "do_center_crop",
    "crop_pct": None,
    "rescale_factor": "do_rescale",
    "rescale_offset": "do_rescale",
    "image_mean": "do_normalize",
    "image_std": "do_normalize",
    "include_top": None,
    "pad_size": "do_pad",
    "patch_size": None,
    "max_num_patches": None,
}
_SWITCHES = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_pad")
_NOT_IN_PIXELS = ("image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "do_convert_rgb")

# Case, numbers, punctuation, an accent, spaces, more than any tower reads. Every tokenizer of one vocabulary cleans
# such texts alike; what it makes of markup or broken characters is left out.
_TEXTS = (
    "a photo of a chair",
    "A Red Table, with 4 legs & 2 drawers (oak).",
    "it's a café-style lamp;  20cm x 35.5cm!",
    "sofa",
    " ".join(["wooden armchair number 7"] * 200),
)
# Numbers of a tensor hashed at once.
_CHUNK = 1 << 24


def tower_fingerprint(
    kind: str,
    weights: Mapping[str, Tensor],
    config: Any,
    tokenizer: Any,
    image_processor: Any,
    tokenize: Callable[[list[str]], Any],
) -> str:
    """The fingerprint, such as `clip-v2-0123456789abcdef`.

    Args:
        kind: what it begins with: the model_type.
        weights: by names of transformers.
        config: a `PreTrainedConfig`, or plain values.
        tokenizer, image_processor: of transformers; what is none of them says nothing of itself.
        tokenize: texts -> ids, and perhaps a mask, as the model gets them.
    """
    return _name(
        kind,
        {
            "weights": weights_digest(weights),
            "config": config_semantics(config),
            "vocabulary": vocabulary_digest(tokenizer),
            "tokens": [token_ids(tokenize, text) for text in _TEXTS],
            "pixels": pixel_semantics(image_processor),
        },
    )


def model_digest(model: Any, tokenizer: Any, image_processor: Any) -> str:
    """As `tower_fingerprint`, for a model of any kind, such as one that writes captions."""
    return _name(
        model.config.model_type,
        {
            "weights": weights_digest(model.state_dict()),
            "config": config_semantics(model.config),
            "vocabulary": vocabulary_digest(tokenizer),
            "pixels": pixel_semantics(image_processor),
        },
    )


def made_by_older_recipe(fingerprint: str) -> bool:
    """Was it made before configuration and tokenizer counted? What carries it can then not be told to fit."""
    return _RECIPE_1.fullmatch(fingerprint) is not None


def _name(kind: str, parts: dict[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return f"{kind}-v{RECIPE}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Digest of every number, rounded to bfloat16. It adds whole numbers, so it is exact on any device and fast."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        if name.rpartition(".")[2] in _NOT_IN_EMBEDDINGS:
            continue
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().flatten()
        for chunk in flat.split(_CHUNK) if len(flat) else ():
            bits = (
                chunk.to(torch.bfloat16).view(torch.int16).long() if chunk.is_floating_point() else chunk.long()
            )  # (n,)
            place = torch.arange(1, len(bits) + 1, device=bits.device)  # (n,)
            # the second sum notices an exchange of values; both may wrap around
            sums = torch.stack([bits.sum(), (bits * (place * place + 12345 * place)).sum()])  # (2,)
            digest.update(sums.cpu().numpy().tobytes())
    return digest.hexdigest()


def config_semantics(config: Any) -> Any:
    """What a configuration says of the function and weights do not show; the same for equivalent configurations."""
    if not hasattr(config, "to_diff_dict"):
        return _plain(config)
    if config.model_type in _CLIP_TYPES:
        return {part: _clip_part(getattr(config, part)) for part in ("text_config", "vision_config")}
    return _function_fields(config.to_diff_dict())


def _clip_part(config: Any) -> dict[str, Any]:
    fields = {name: _plain(getattr(config, name)) for name in _CLIP_FIELDS if hasattr(config, name)}
    vocabulary = getattr(config, "vocab_size", None)
    if vocabulary is not None:
        highest = config.eos_token_id in (_CLIP_HIGHEST, vocabulary - 1)
        fields["pooled at"] = "the highest id" if highest else config.eos_token_id
    return fields


def _function_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in fields.items():
        if _NOT_IN_FUNCTION.fullmatch(name):
            continue
        kept[name] = _function_fields(value) if isinstance(value, Mapping) else _plain(value)
    return kept


def vocabulary_digest(tokenizer: Any) -> str | None:
    """Digest of all tokens and their ids."""
    if not hasattr(tokenizer, "get_vocab"):
        return None
    entries: Iterable[tuple[str, int]] = sorted(tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(list(entries)).encode()).hexdigest()


def token_ids(tokenize: Callable[[list[str]], Any], text: str) -> list[int]:
    """The ids that count: without padding, where a mask tells it."""
    encoded = tokenize([text])
    ids = encoded["input_ids"][0].tolist()
    mask = encoded.get("attention_mask")
    return ids if mask is None else [own for own, kept in zip(ids, mask[0].tolist(), strict=True) if kept]


def pixel_semantics(image_processor: Any) -> dict[str, Any]:
    """What an image processor does to pixels."""
    settings: dict[str, Any] = getattr(image_processor, "to_dict", dict)()
    off = {switch for switch in _SWITCHES if not settings.get(switch, False)}
    kept = {
        name: _plain(settings[name])
        for name, switch in _PIXEL_FIELDS.items()
        if settings.get(name) is not None and switch not in off
    }
    if not type(image_processor).__module__.startswith("transformers."):  # all that somebody's own class says
        kept |= {name: _plain(value) for name, value in settings.items() if name not in _NOT_IN_PIXELS}
    for flag in ("rescale_offset", "include_top"):
        if kept.get(flag) is False:
            del kept[flag]
    return kept


def _plain(value: Any) -> Any:
    """A value as JSON has it, numbers rounded to what float32 tells apart."""
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return {str(name): _plain(own) for name, own in value.items() if own is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(own) for own in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return float(f"{float(value):.6g}")
    return str(value)
