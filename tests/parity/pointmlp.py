"""`pointmlp/<cfg>`: the encoder with its intermediates, the draws of its sampling, and one training step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from modeling_ulip2 import PointMLPConfig, PointMLPModel
from modeling_ulip2.conversion.pointconv import pointmlp_config
from tests.parity import ATOL, Case, TensorFile, read_json
from tests.parity.pointbert import cases, check_neighbors, compare_gradients, gradients_of, load_weights
from tests.parity.pointnet2_ssg import capture, check_draws
from tests.parity.ties import Gradients

__all__ = ["cases", "check"]

# The features grow to 50 in thirty layers, and float32 rounding with them: the recorded run itself differs from one in
# float64 by up to 3e-5. So the absolute tolerance is this share of the largest entry, where that is more than usual.
SHARE_OF_LARGEST = 1e-6


def check(case: Case) -> None:
    json_path, tensor_path, weights_path, weights_json = case.files
    declared, described, tensors = read_json(json_path), read_json(weights_json), case.open(tensor_path)
    assert declared.get("config", described["config"]) == described["config"], f"{case.name}: not its weights"
    fields = pointmlp_config(described["config"])
    model = PointMLPModel(PointMLPConfig(**fields, head_dropout=0.0))
    model.load_state_dict(load_weights(weights_path))
    case.equal("n_parameters", model.num_parameters(), described["n_parameters"])
    case.equal("output_dim", model.config.output_dim, described["output_dim"])
    points, starts = tensors["input"], tensors["fps_start"]
    check_draws(case, declared, [points.shape[1], *model.config.num_centers[:-1]], starts)
    match declared["mode"]:
        case "eval":
            check_forward(case, model.eval(), tensors, declared)
        case "train, dropout probability set to 0":
            check_train_step(case, model.train(), tensors, declared)
        case mode:
            raise AssertionError(f"{case.name}: unknown mode {mode!r}")


def close(case: Case, name: str, actual: torch.Tensor, expected: torch.Tensor) -> None:
    largest = expected.abs().max().item()
    case.close(name, actual, expected, atol=max(ATOL, SHARE_OF_LARGEST * largest))


def check_indices(case: Case, model: PointMLPModel, tensors: TensorFile) -> list[torch.Tensor]:
    """Centers and neighbors of every stage; returns the centers (B, S, 3)."""
    xyz, all_centers = tensors["input"][..., :3], []
    for i, (grouper, start) in enumerate(zip(model.local_grouper_list, tensors["fps_start"], strict=True)):
        center_index, neighbor_index = grouper.select(xyz, start)
        case.equal(f"fps_{i}", center_index, tensors[f"fps_{i}"].long())
        check_neighbors(case, xyz, neighbor_index, tensors[f"knn_{i}"])
        xyz = xyz.gather(1, center_index[..., None].expand(-1, -1, 3))
        all_centers.append(xyz)
    return all_centers


def check_forward(case: Case, model: PointMLPModel, tensors: TensorFile, declared: dict[str, Any]) -> None:
    points, stages = tensors["input"], range(len(model.local_grouper_list))
    modules = {"embedding": "embedding", "classifier.0": "classifier.0", "classifier.4": "classifier.4"}
    modules |= {f"grouper_{i}": f"local_grouper_list.{i}" for i in stages}
    modules |= {f"pre_{i}": f"pre_blocks_list.{i}" for i in stages}
    modules |= {f"posx_{i}": f"pos_blocks_list.{i}" for i in stages}
    captured = capture(model, list(modules.values()))
    with torch.no_grad():
        output = model(points, start_indices=tensors["fps_start"], output_hidden_states=True)
        drawn = model(points, generator=torch.Generator().manual_seed(declared["torch_seed_before_forward"]))
    for i, centers in enumerate(check_indices(case, model, tensors)):
        centers_in_model, rows = captured[modules[f"grouper_{i}"]]
        case.equal(f"centers of stage {i}", centers_in_model, centers)
        case.close(f"grouper_{i}.0", centers, tensors[f"grouper_{i}.0"])
        if f"grouper_{i}.1" in tensors:  # the order of the neighbors is unspecified
            close(case, f"grouper_{i}.1", sorted_rows(rows), sorted_rows(tensors[f"grouper_{i}.1"]))
        close(case, f"hidden state {i}", output.hidden_states[i].mT, tensors[f"posx_{i}"])
    for name, module in modules.items():
        if not name.startswith("grouper"):
            close(case, name, captured[module], tensors[name])
    close(case, "output", output.pooled, tensors["output"])
    close(case, "output (drawn starts)", drawn.pooled, tensors["output"])
    case.equal("centers", output.centers, centers)
    case.equal("tokens", output.tokens, output.hidden_states[-1])


def sorted_rows(rows: torch.Tensor) -> torch.Tensor:
    """The neighbors of every center (B, S, K, C) in the order of a random projection of their features."""
    direction = torch.randn(rows.shape[-1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = (rows.double() @ direction).argsort(dim=2)  # (B, S, K)
    return rows.gather(2, order[..., None].expand_as(rows))


def check_train_step(case: Case, model: PointMLPModel, tensors: TensorFile, declared: dict[str, Any]) -> None:
    assert declared["loss"] == "sum(output * loss_weight)", f"{case.name}: unknown loss {declared['loss']!r}"
    check_indices(case, model, tensors)
    output = model(tensors["input"], start_indices=tensors["fps_start"]).pooled
    loss = (output * tensors["loss_weight"]).sum()
    loss.backward()
    close(case, "output", output, tensors["output"])
    case.close("loss", loss, tensors["loss"], atol=1e-3)
    for name, buffer in model.named_buffers():
        close(case, f"after.{name}", buffer, tensors[f"after.{name}"])
    check_gradients(case, gradients_of(model), declared["grad_norms"], tensors, partial(exactly, model, tensors))


def exactly(model: PointMLPModel, tensors: TensorFile) -> Gradients:
    """The gradients of the same training step in float64."""
    exact = copy.deepcopy(model).double().train()
    exact.zero_grad()
    output = exact(tensors["input"].double(), start_indices=tensors["fps_start"]).pooled
    (output * tensors["loss_weight"].double()).sum().backward()
    return gradients_of(exact)


def check_gradients(
    case: Case, actual: Gradients, norms: dict[str, float], tensors: TensorFile, exact: Callable[[], Gradients]
) -> None:
    """Compares all gradients, up to what flips of ties explain (see `ties`)."""
    assert set(norms) == set(actual)
    scales, recorded, largest = {}, {}, {}
    for name in norms:
        # what stands before a BatchNorm as a shift has gradient zero in exact arithmetic: what is recorded is rounding
        scale = norms[name]
        for shift, factor in (("affine_beta", "affine_alpha"), ("bias", "weight")):
            if name.endswith(shift):
                scale = max(scale, norms[name.removesuffix(shift) + factor])
        scales[name] = scale
        if f"grad.{name}" in tensors:
            recorded[name] = tensors[f"grad.{name}"]
            largest[name] = max(recorded[name].abs().max().item(), scale / recorded[name].numel() ** 0.5)
    compare_gradients(case, actual, recorded, largest, norms, scales, exact)
