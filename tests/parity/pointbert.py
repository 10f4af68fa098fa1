"""`pointbert_xyz/<cfg>` and `pointbert_xyzrgb/<cfg>`: all intermediates of the encoder, and one training step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from modeling_ulip2 import PointBertConfig, PointBertModel
from modeling_ulip2.conversion import pointbert_config
from modeling_ulip2.pointbert_ulip2 import group_points
from tests.parity import ATOL, Case, TensorFile, read_json

# Gradients are sums over thousands of points, so their tolerance is relative to the largest entry. Biases in front of
# a BatchNorm have gradient zero in exact arithmetic: what is recorded is rounding, measured against the weight's
# gradient.
GRADIENT_RTOL = 1e-4
BEFORE_BATCH_NORM = {"encoder.first_conv.0.bias", "encoder.first_conv.3.bias", "encoder.second_conv.0.bias"}


def cases(folder: Path) -> Iterator[Case]:
    for path in sorted(folder.glob("*/*.json")):
        if path.name == "weights.json":
            continue
        weights = path.with_name("weights.safetensors")
        files = [path, path.with_suffix(".safetensors"), weights, weights.with_suffix(".json")]
        yield Case(folder.name, path.relative_to(folder).with_suffix("").as_posix(), files)


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Recorded weights, floats cast to float32 (they were rounded to float16 before the recorded run)."""
    return {k: v.float() if v.is_floating_point() else v for k, v in TensorFile(path).items()}


def build(config: dict[str, Any], weights: dict[str, torch.Tensor], **overrides: Any) -> PointBertModel:
    model = PointBertModel(PointBertConfig(**pointbert_config(config, weights), **overrides))
    model.load_state_dict(weights)
    return model


def check(case: Case) -> None:
    json_path, tensor_path, weights_path, weights_json = case.files
    declared = read_json(json_path)
    weights = load_weights(weights_path)
    model = build(declared["config"], weights)
    assert model.num_parameters() == read_json(weights_json)["n_parameters"]
    tensors = case.open(tensor_path)
    match declared["mode"]:
        case "eval":
            check_forward(case, model.eval(), tensors)
        case "train":
            check_train_step(case, model.train(), tensors, declared)
        case mode:
            raise AssertionError(f"{case.folder}/{case.name}: unknown mode {mode!r}")


def check_neighbors(case: Case, points: torch.Tensor, actual: torch.Tensor, expected: torch.Tensor) -> None:
    """The same sets of points; of duplicated points any copy may be chosen, so copies share one label."""
    for cloud, found, wanted in zip(points, actual, expected.long(), strict=True):
        label = cloud.unique(dim=0, return_inverse=True)[1]  # (N,)
        case.equal("knn_idx_sorted", label[found].sort(dim=-1).values, label[wanted].sort(dim=-1).values)


def check_forward(case: Case, model: PointBertModel, tensors: TensorFile) -> None:
    config, points = model.config, tensors["input"]
    neighborhood, centers, center_index, neighbor_index = group_points(points, config.num_groups, config.group_size)
    case.equal("fps_idx", center_index, tensors["fps_idx"].long())
    case.close("center", centers, tensors["center"])
    check_neighbors(case, points[..., :3], neighbor_index, tensors["knn_idx_sorted"])
    # recorded in the order of the sorted indices; copies of a point may stand for each other, so compare sorted rows
    order = neighbor_index.argsort(dim=-1)[..., None].expand_as(neighborhood)
    case.close("neighborhood", _sorted_rows(neighborhood.gather(2, order)), _sorted_rows(tensors["neighborhood"]))

    for attention in ("sdpa", "eager"):
        model.set_attn_implementation(attention)
        with torch.no_grad():
            tokens = model.encoder(neighborhood)
            output = model(points, output_hidden_states=True)
        case.close("group_tokens", tokens, tensors["group_tokens"])
        case.close("reduced_tokens", output.hidden_states[0][:, 1:], tensors["reduced_tokens"])
        case.close("pos", model.pos_embed(centers), tensors["pos"])
        for i, hidden_states in enumerate(output.hidden_states[1:]):
            expected = tensors[f"block_{i}"]
            # the residual stream grows with every block, and its rounding with it
            atol = ATOL * max(1.0, expected.square().mean().sqrt().item())
            case.close(f"block_{i} ({attention})", hidden_states, expected, atol=atol)
        cls = output.pooled[:, None, : config.hidden_size]
        case.close(f"normed ({attention})", torch.cat([cls, output.tokens], dim=1), tensors["normed"])
        case.close(f"output ({attention})", output.pooled, tensors["output"])


def _sorted_rows(rows: torch.Tensor) -> torch.Tensor:
    """Sorts the points of every patch (B, G, M, C), well enough to compare sets of well separated points."""
    key = (rows.double() * torch.tensor([1.0, 1e3, 1e6] + [0.0] * (rows.shape[-1] - 3))).sum(-1)
    return rows.gather(2, key.argsort(dim=-1)[..., None].expand_as(rows))


def check_train_step(case: Case, model: PointBertModel, tensors: TensorFile, declared: dict[str, Any]) -> None:
    assert declared["loss"] == "sum(output * loss_weight)", f"{case.name}: unknown loss {declared['loss']!r}"
    config, points = model.config, tensors["input"].requires_grad_()
    neighborhood, _, center_index, neighbor_index = group_points(points, config.num_groups, config.group_size)
    case.equal("fps_idx", center_index, tensors["fps_idx"].long())
    check_neighbors(case, points[..., :3].detach(), neighbor_index, tensors["knn_idx_sorted"])
    captured: list[torch.Tensor] = []
    hook = model.encoder.register_forward_hook(lambda module, args, output: captured.append(output))
    output = model(points).pooled
    hook.remove()
    loss = (output * tensors["loss_weight"]).sum()
    loss.backward()
    case.close("group_tokens", captured[0], tensors["group_tokens"])
    case.close("output", output, tensors["output"])
    case.close("loss", loss, tensors["loss"], atol=1e-3)

    def close_gradient(name: str, actual: torch.Tensor, expected: torch.Tensor, scale: float) -> None:
        case.close(name, actual, expected, atol=GRADIENT_RTOL * scale, rtol=0)

    close_gradient("grad_input", points.grad, tensors["grad_input"], tensors["grad_input"].abs().max().item())
    parameters, norms = dict(model.named_parameters()), declared["grad_norms"]
    assert set(norms) == set(parameters)
    for name, parameter in parameters.items():
        scale = norms[name.replace(".bias", ".weight")] if name in BEFORE_BATCH_NORM else norms[name]
        close_gradient(f"norm of grad.{name}", parameter.grad.norm(), torch.tensor(norms[name]), scale)
        if f"grad.{name}" in tensors:
            expected = tensors[f"grad.{name}"]
            largest = scale if name in BEFORE_BATCH_NORM else expected.abs().max().item()
            close_gradient(f"grad.{name}", parameter.grad, expected, largest)
    for name, buffer in model.named_buffers():
        case.close(f"after.{name}", buffer, tensors[f"after.{name}"])
