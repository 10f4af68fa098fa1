"""`pointbert_xyz/<cfg>` and `pointbert_xyzrgb/<cfg>`: all intermediates of the encoder, and one training step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modeling_ulip2 import PointBertConfig, PointBertModel
from modeling_ulip2.conversion import pointbert_config
from modeling_ulip2.models.modeling_pointbert import sample_patches
from tests.parity import ATOL, Case, TensorFile, read_json
from tests.parity.ties import Gradients, explain

# Gradients are sums over thousands of points, so their tolerance is relative to the largest entry. Biases in front of
# a BatchNorm have gradient zero in exact arithmetic: what is recorded is rounding, measured against the weight's
# gradient.
GRADIENT_RTOL = 1e-4
INPUT = "the points"
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
    neighborhood, centers, center_index, neighbor_index = sample_patches(points, config.num_groups, config.group_size)
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
    neighborhood, _, center_index, neighbor_index = sample_patches(points, config.num_groups, config.group_size)
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
    for name, buffer in model.named_buffers():
        case.close(f"after.{name}", buffer, tensors[f"after.{name}"])
    exact = partial(exactly, model, tensors)
    check_gradients(case, gradients_of(model, points), declared["grad_norms"], tensors, exact)


def gradients_of(model: torch.nn.Module, points: torch.Tensor | None = None) -> Gradients:
    """Those of the parameters, and of the points as `INPUT`."""
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return found if points is None else found | {INPUT: points.grad}


def exactly(model: PointBertModel, tensors: TensorFile) -> Gradients:
    """The gradients of the same training step in float64."""
    exact = copy.deepcopy(model).double().train()
    exact.zero_grad()
    points = tensors["input"].detach().requires_grad_()
    (exact(points).pooled * tensors["loss_weight"].double()).sum().backward()
    return gradients_of(exact, points)


def check_gradients(
    case: Case, actual: Gradients, norms: dict[str, float], tensors: TensorFile, exact: Callable[[], Gradients]
) -> None:
    """Compares all gradients, up to what flips of ties explain (see `ties`)."""
    assert set(norms) == set(actual) - {INPUT}
    weight_of = {name: name.replace(".bias", ".weight") for name in BEFORE_BATCH_NORM}
    scales = {name: norms[weight_of.get(name, name)] for name in norms}
    recorded = {name: tensors[f"grad.{name}"] for name in norms if f"grad.{name}" in tensors}
    recorded |= {INPUT: tensors["grad_input"]} if INPUT in actual else {}
    largest = {
        name: scales[name] if name in BEFORE_BATCH_NORM else expected.abs().max().item()
        for name, expected in recorded.items()
    }
    compare_gradients(case, actual, recorded, largest, norms, scales, exact)


def compare_gradients(
    case: Case,
    actual: Gradients,
    recorded: Gradients,
    largest: dict[str, float],
    norms: dict[str, float],
    scales: dict[str, float],
    exact: Callable[[], Gradients],
) -> None:
    """Compares gradients entry by entry, and the norms of all, within `GRADIENT_RTOL` of `largest` and of `scales`."""
    tolerance = {name: GRADIENT_RTOL * largest[name] for name in recorded}
    actual, _ = explain(exact, actual, recorded, tolerance)
    for name, expected in recorded.items():
        case.close(f"gradient of {name}", actual[name], expected, atol=tolerance[name], rtol=0)
    for name, norm in norms.items():
        atol = GRADIENT_RTOL * scales[name]
        case.close(f"norm of the gradient of {name}", actual[name].norm(), torch.tensor(norm), atol=atol, rtol=0)
