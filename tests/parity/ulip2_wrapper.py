"""`ulip2_wrapper/<cfg>`: published checkpoints read, converted and run, with and without the tower's weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from modeling_ulip2.conversion import LAYOUTS, convert_checkpoint, pointbert_config, published_name, read_checkpoint
from tests.parity import Case, read_json

ULIP = next(layout for layout in LAYOUTS if layout.name == "ULIP")
CHECKPOINTS = ("checkpoint_full.pt", "checkpoint_point_side_only.pt")
FORWARD = ("forward.json", "forward.safetensors")


def cases(folder: Path) -> Iterator[Case]:
    for weights in sorted(folder.glob("*/weights.json")):
        root = weights.parent
        for name in CHECKPOINTS:
            files = [root / name, weights, *(root / file for file in FORWARD), root / "param_groups.json"]
            yield Case(folder.name, f"{root.name}/{Path(name).stem}", files, data=root)


def open_clip_model(declared: dict[str, Any]) -> torch.nn.Module:
    """The tower's architecture with random weights."""
    import open_clip

    text, vision = open_clip.CLIPTextCfg(**declared["text_cfg"]), open_clip.CLIPVisionCfg(**declared["vision_cfg"])
    return open_clip.CLIP(declared["embed_dim"], vision, text)


def check(case: Case) -> None:
    path, declared = case.files[0], read_json(case.files[1])
    checkpoint = read_checkpoint(path)
    tower = open_clip_model(declared) if path.name == "checkpoint_full.pt" else None
    encoder = {k.removeprefix("point_encoder."): v for k, v in checkpoint.state_dict.items()}
    model = convert_checkpoint(
        checkpoint, point_config=pointbert_config(declared["point_encoder"], encoder), open_clip_model=tower
    )
    assert model.config.projection_dim == declared["embed_dim"]
    assert model.config.point_config.output_dim == declared["pc_feat_dims"]
    expected_names = {name for name in checkpoint.state_dict if not name.startswith("open_clip_model.")}
    assert {published_name(name, ULIP) for name in model.state_dict()} == expected_names

    tensors = case.open(case.data / "forward.safetensors")
    with torch.no_grad():
        points = model(point_values=tensors["pc"])
        features = model.get_point_features(tensors["pc"]).pooler_output
        pooled = points.point_model_output.pooled
    case.close("pc_features", pooled, tensors["pc_features"])
    case.close("pc_embed", features, tensors["pc_embed"])
    case.close("logit_scale", model.logit_scale.exp(), tensors["logit_scale"])
    if tower is None:
        # the towers' outputs stand in for the towers
        inputs = {"text_embeds": tensors["text_embed_per_prompt_unnormalised"], "image_embeds": tensors["image_embed"]}
        for name in ("text", "image"):
            tensors[name]
    else:
        per_prompt = tensors["text_embed_per_prompt_unnormalised"]
        with torch.no_grad():
            texts = model.get_text_features(tensors["text"].flatten(0, 1)).pooler_output
            images = model.get_image_features(tensors["image"]).pooler_output
        case.close("text_embed_per_prompt_unnormalised", texts.view_as(per_prompt), per_prompt)
        case.close("image_embed", images, tensors["image_embed"])
        inputs = {"input_ids": tensors["text"], "pixel_values": tensors["image"]}
        trained = sum(p.numel() for p in model.parameters()) + sum(p.numel() for p in tower.parameters())
        case.equal("n_parameters", trained, declared["n_parameters"])
    with torch.no_grad():
        output = model(point_values=tensors["pc"], **inputs, return_loss=True)
    case.close("text_embed", output.text_embeds, tensors["text_embed"])
    case.close("point_embeds", output.point_embeds, F.normalize(tensors["pc_embed"], dim=-1))
    case.close("loss", output.loss, tensors["loss"])
    target = torch.arange(len(output.point_embeds))
    for name in ("text", "image"):
        accuracy = (output[f"logits_per_point_{name}"].argmax(dim=1) == target).float().mean() * 100
        case.close(f"pc_{name}_acc", accuracy, tensors[f"pc_{name}_acc"])
    check_parameter_groups(case, model)


def check_parameter_groups(case: Case, model: torch.nn.Module) -> None:
    """The rule for weight decay is the trainer's (`tests/training`); here: both speak of the same parameters."""
    groups = read_json(case.data / "param_groups.json")
    published = {name for group in groups.values() if isinstance(group, list) for name in group}
    ours = {published_name(name, ULIP) for name, _ in model.named_parameters()}
    assert ours == {name for name in published if not name.startswith("open_clip_model.")}
