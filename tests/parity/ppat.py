"""`ppat/<cfg>`: OpenShape's encoder and projection with all intermediates, and the draw of its sampling."""

from __future__ import annotations

import torch

from modeling_ulip2 import PpatConfig, PpatModel, Ulip2Config, Ulip2PointModelWithProjection
from modeling_ulip2.conversion.checkpoint import PublishedCheckpoint
from modeling_ulip2.conversion.layouts import recognize, sort_tensors
from modeling_ulip2.conversion.pointvit import ppat_config
from modeling_ulip2.models.modeling_ppat import group_balls
from tests.parity import Case, TensorFile, read_json
from tests.parity.pointbert import cases, load_weights

__all__ = ["cases", "check"]


def check(case: Case) -> None:
    json_path, tensor_path, weights_path, weights_json = case.files
    declared, weights_declared, tensors = read_json(json_path), read_json(weights_json), case.open(tensor_path)
    assert declared["mode"] == "eval", f"{case.name}: unknown mode {declared['mode']!r}"
    checkpoint = PublishedCheckpoint(load_weights(weights_path))
    parts = sort_tensors(checkpoint, recognize(checkpoint))
    config = PpatConfig(**ppat_config(weights_declared["config"]))
    for attention in ("sdpa", "eager"):
        model = Ulip2PointModelWithProjection._from_config(
            Ulip2Config(point_config=config, projection_dim=weights_declared["out_channel"], projection_bias=True),
            attn_implementation=attention,
        ).eval()
        model.point_model.load_state_dict(parts.encoder)
        model.point_projection.load_state_dict(parts.projection)
        case.equal("n_parameters", model.num_parameters(), weights_declared["n_parameters"])
        check_forward(case, model, tensors, attention)
    check_draw(case, model.point_model, tensors, declared["torch_seed_before_forward"])


def check_forward(case: Case, model: Ulip2PointModelWithProjection, tensors: TensorFile, attention: str) -> None:
    xyz, points, fps = tensors["xyz"], tensors["features"], tensors["fps_idx"].long()
    # the columns of a cloud begin with its coordinates, so that `features` alone says all
    assert torch.equal(points[..., :3], xyz), f"{case.name}: features do not begin with xyz"
    encoder, config = model.point_model, model.config.point_config
    _, centers, center_index, ball_index = group_balls(
        points, config.num_groups, config.group_radius, config.group_size, start=fps[:, 0]
    )
    case.equal("fps_idx", center_index, fps)
    case.equal("ball_idx", ball_index, tensors["ball_idx"].long())
    captured: dict[str, torch.Tensor] = {}

    def keep(name: str, module: torch.nn.Module) -> None:
        def hook(module: torch.nn.Module, args: object, output: object) -> None:
            captured[name] = output[0] if isinstance(output, tuple) else output

        module.register_forward_hook(hook)

    keep("set_abstraction.1", encoder.sa)
    for i, block in enumerate(encoder.transformer.layers):
        for branch, module in zip(("attn", "ff"), block.children(), strict=True):
            keep(f"{branch}_{i}", module.fn)
    with torch.no_grad():
        pooled = encoder(points, start_indices=fps[None, :, 0], output_hidden_states=True)
        output = model.point_projection(pooled.pooled)
    case.close("set_abstraction.0", centers.mT, tensors["set_abstraction.0"])
    case.close("set_abstraction.1", captured["set_abstraction.1"].mT, tensors["set_abstraction.1"])
    case.close("lift", pooled.hidden_states[0][:, 1:], tensors["lift"])
    for i in range(config.num_hidden_layers):
        for branch in ("attn", "ff"):
            case.close(f"{branch}_{i} ({attention})", captured[f"{branch}_{i}"], tensors[f"{branch}_{i}"])
    case.close(f"class_token_out ({attention})", pooled.pooled, tensors["class_token_out"])
    case.close(f"output ({attention})", output, tensors["output"])


def check_draw(case: Case, encoder: PpatModel, tensors: TensorFile, seed: int) -> None:
    """A seed gives the recorded first center, with torch's generator in training and with one of our own anywhere."""
    points, first = tensors["features"], tensors["fps_idx"][:, 0].long()
    expected = points[torch.arange(len(first)), first, :3]  # (B, 3)
    with torch.no_grad():
        drawn = encoder(points, generator=torch.Generator().manual_seed(seed))
    case.equal("first center (generator)", drawn.centers[:, 0], expected)
    torch.manual_seed(seed)
    encoder.train()
    with torch.no_grad():
        drawn = encoder(points)
    case.equal("first center (training)", drawn.centers[:, 0], expected)
