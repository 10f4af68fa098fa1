"""`uni3d/<kind>`: Uni3D's point encoder over its three kinds of block, with all intermediates."""

from __future__ import annotations

from pathlib import Path

import torch

from modeling_ulip2 import Ulip2Config, Ulip2PointModelWithProjection, Uni3dConfig
from modeling_ulip2.conversion.checkpoint import PublishedCheckpoint
from modeling_ulip2.conversion.encoders import recognize_encoder, without_unused
from modeling_ulip2.conversion.layouts import recognize, sort_tensors
from modeling_ulip2.conversion.pointvit import uni3d_config
from modeling_ulip2.models.modeling_pointbert import sample_patches
from tests.parity import Case, TensorFile, read_json
from tests.parity.pointbert import cases, check_neighbors, load_weights

__all__ = ["cases", "check"]

SHARED = " (encoder.* keys are shared)"


def all_weights(path: Path, encoder_keys_from: str) -> dict[str, torch.Tensor]:
    """The weights of a configuration; the patch encoder may lie with another one."""
    weights = load_weights(path)
    if encoder_keys_from == "this file":
        return weights
    assert encoder_keys_from.endswith(SHARED), f"{path}: encoder_keys_from {encoder_keys_from!r} is not understood"
    other = path.parents[1] / (encoder_keys_from.removesuffix(SHARED) + ".safetensors")
    shared = {name: value for name, value in load_weights(other).items() if name.startswith("encoder.")}
    assert not shared.keys() & weights.keys()
    return shared | weights


def check(case: Case) -> None:
    json_path, tensor_path, weights_path, weights_json = case.files
    declared, weights_declared, tensors = read_json(json_path), read_json(weights_json), case.open(tensor_path)
    assert declared["mode"] == "eval", f"{case.name}: unknown mode {declared['mode']!r}"
    weights = all_weights(weights_path, weights_declared["encoder_keys_from"])
    checkpoint = PublishedCheckpoint({f"point_encoder.{name}": value for name, value in weights.items()})
    parts = sort_tensors(checkpoint, recognize(checkpoint))
    layout = recognize_encoder(parts.encoder)
    encoder, unused = without_unused(layout, parts.encoder)

    config = Uni3dConfig(**uni3d_config(weights_declared["config"], weights_declared["trunk"]))
    eps = [norm[1] for norm in weights_declared["norms"] if norm[0] == "LayerNorm"]
    assert set(eps) == {config.layer_norm_eps}, f"{case.name}: LayerNorms with eps {eps}"
    inferred = layout.fields(parts.encoder, {})
    inferred.pop("num_attention_heads", None)  # a width of the published sizes would say it
    assert inferred == {name: getattr(config, name) for name in inferred}
    for attention in ("sdpa", "eager"):
        model = Ulip2PointModelWithProjection._from_config(
            Ulip2Config(
                point_config=config,
                projection_dim=weights_declared["config"]["embed_dim"],
                projection_bias=True,
            ),
            attn_implementation=attention,
        ).eval()
        model.point_model.load_state_dict(encoder)
        model.point_projection.load_state_dict(parts.projection)
        check_forward(case, model, tensors, attention)
    left_out = sum(weights[name].numel() for name in unused)
    case.equal("n_parameters", model.num_parameters() + left_out, weights_declared["n_parameters"])


def check_forward(case: Case, model: Ulip2PointModelWithProjection, tensors: TensorFile, attention: str) -> None:
    encoder, config = model.point_model, model.config.point_config
    points = torch.cat([tensors["xyz"], tensors["color"]], dim=-1)  # (B, N, 6)
    neighborhood, centers, center_index, neighbor_index = sample_patches(points, config.num_groups, config.group_size)
    case.equal("fps_idx", center_index, tensors["fps_idx"].long())
    check_neighbors(case, points[..., :3], neighbor_index, tensors["knn_idx_sorted"])
    with torch.no_grad():
        tokens = encoder.encoder(neighborhood)
        position = encoder.pos_embed(centers)
        output = model(points, output_hidden_states=True)
    case.close("group_tokens", tokens, tensors["group_tokens"])
    case.close("pos", position, tensors["pos"])
    with torch.no_grad():
        case.close("tokens", encoder.encoder2trans(tokens), tensors["tokens"])
    case.close("first hidden states", output.hidden_states[0][:, 1:], tensors["tokens"] + tensors["pos"])
    for i, hidden_states in enumerate(output.hidden_states[1:]):
        case.close(f"block_{i} ({attention})", hidden_states, tensors[f"block_{i}"])
    case.close(f"normed_cls ({attention})", output.pooled, tensors["normed_cls"])
    case.close(f"output ({attention})", output.point_embeds, tensors["output"])
