"""`ulip1_wrapper/<cfg>`: a checkpoint of ULIP's first generation, its SLIP tower included, recognized and run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from modeling_ulip2 import Ulip2Model
from modeling_ulip2.conversion import PublishedCheckpoint, convert, pointbert_config, recognize, sort_tensors
from modeling_ulip2.models.modeling_slip import SlipModel
from modeling_ulip2.towers.slip import slip_config, slip_from_published
from modeling_ulip2.training.param_groups import has_weight_decay
from tests.parity import Case, TensorFile, read_json
from tests.parity.pointbert import load_weights

NOTE = (
    "image_embed = vision features @ image_projection; text tower: causal mask, QuickGELU x*sigmoid(1.702x), "
    "LayerNorm eps 1e-5, feature taken at the position of the largest token id"
)


def cases(folder: Path) -> Iterator[Case]:
    for weights in sorted(folder.glob("*/weights.json")):
        names = ("weights.json", "weights.safetensors", "forward.json", "forward.safetensors", "param_groups.json")
        yield Case(folder.name, weights.parent.name, [weights.with_name(name) for name in names])


def check(case: Case) -> None:
    declared, weights, forward_json, forward, groups = case.files
    wrapper, note = read_json(declared), read_json(forward_json)["note"]
    assert wrapper["model"] == "ULIP-1 wrapper" and wrapper["mode"] == "eval" and note == NOTE
    checkpoint = PublishedCheckpoint(load_weights(weights))
    parts = sort_tensors(checkpoint, recognize(checkpoint))
    assert parts.tower_kind == "slip"
    conversion = convert(checkpoint, point_config=pointbert_config(wrapper["point_encoder"], parts.encoder))
    model, names = conversion.model, set(checkpoint.state_dict)
    assert conversion.layout.name == "ULIP" and isinstance(model, Ulip2Model)
    assert not conversion.unused and not conversion.added

    kwargs, vision = wrapper["kwargs"], wrapper["vision_transformer"]
    config = slip_config(
        parts.tower,
        text_num_attention_heads=kwargs["transformer_heads"],
        vision_num_attention_heads=vision["num_heads"],
    )
    check_config(case, config.to_dict(), kwargs, vision)
    tower = slip_from_published(parts.tower, config)
    case.equal(
        "n_parameters", model.num_parameters() + tower.num_parameters() - 1, wrapper["n_parameters"]
    )  # the tower's own logit scale is not in the file
    assert {name for name, _ in tower.named_parameters()} - {"logit_scale"} <= names
    check_parameter_groups(read_json(groups), checkpoint.state_dict)
    for attention in ("sdpa", "eager"):
        tower.set_attn_implementation(attention)
        model.set_attn_implementation(attention)
        check_forward(case, model, tower, case.open(forward), attention)


def check_config(case: Case, ours: dict[str, Any], kwargs: dict[str, Any], vision: dict[str, Any]) -> None:
    declared = {
        "projection_dim": kwargs["embed_dim"],
        "vocab_size": kwargs["vocab_size"],
        "max_position_embeddings": kwargs["context_length"],
        "text_hidden_size": kwargs["transformer_width"],
        "text_num_hidden_layers": kwargs["transformer_layers"],
        "image_size": vision["img_size"],
        "patch_size": vision["patch_size"],
        "vision_hidden_size": vision["embed_dim"],
        "vision_num_hidden_layers": vision["depth"],
    }
    assert vision["num_classes"] == 0 and kwargs["vision_width"] == vision["embed_dim"]
    assert declared == {name: ours[name] for name in declared}, case.name


def check_forward(case: Case, model: Ulip2Model, tower: SlipModel, tensors: TensorFile, attention: str) -> None:
    per_prompt = tensors["text_embed_per_prompt_unnormalised"]
    with torch.no_grad():
        texts = tower.get_text_features(tensors["text"].flatten(0, 1)).pooler_output
        case.close(f"texts ({attention})", texts.view_as(per_prompt), per_prompt)
        images = tower.get_image_features(tensors["image"]).pooler_output
        case.close(f"image_embed ({attention})", images, tensors["image_embed"])
        points = model.get_point_features(tensors["pc"]).pooler_output
        case.close(f"pc_embed ({attention})", points, tensors["pc_embed"])
        model.set_clip_model(tower)
        output = model(point_values=tensors["pc"], input_ids=tensors["text"], pixel_values=tensors["image"])
    case.close(f"text_embed ({attention})", output.text_embeds, tensors["text_embed"])
    case.close("image_embeds", output.image_embeds, F.normalize(tensors["image_embed"], dim=-1))
    case.close("point_embeds", output.point_embeds, F.normalize(tensors["pc_embed"], dim=-1))
    case.close("logit_scale", model.logit_scale.exp(), tensors["logit_scale"])


def check_parameter_groups(groups: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    """ULIP-1's groups follow the rule that the trainer applies: no decay below two axes, or for bias, ln and bn."""
    decayed, undecayed = set(groups["weight_decay"]), set(groups["no_weight_decay"])
    buffers = {name for name in weights if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert decayed | undecayed == set(weights) - buffers
    for name in decayed | undecayed:
        assert has_weight_decay(name, weights[name].ndim) == (name in decayed), name
