"""`pointnet2_ssg/<cfg>`: the encoder with its intermediates, and the draws of its sampling."""

from __future__ import annotations

from typing import Any

import torch

from modeling_ulip2 import PointNet2Config, PointNet2Model
from modeling_ulip2.conversion.pointconv import pointnet2_config
from modeling_ulip2.models.point_layers import sampling_starts
from tests.parity import Case, read_json
from tests.parity.pointbert import cases, load_weights

__all__ = ["cases", "check"]


def check(case: Case) -> None:
    json_path, tensor_path, weights_path, weights_json = case.files
    declared, tensors = read_json(json_path), case.open(tensor_path)
    assert declared["mode"] == "eval", f"{case.name}: unknown mode {declared['mode']!r}"
    model = PointNet2Model(PointNet2Config(**pointnet2_config(declared["config"]))).eval()
    model.load_state_dict(load_weights(weights_path))
    case.equal("n_parameters", model.num_parameters(), read_json(weights_json)["n_parameters"])
    case.equal("output_dim", model.config.output_dim, read_json(weights_json)["output_dim"])

    points, starts = tensors["input"], tensors["fps_start"]
    check_draws(case, declared, [points.shape[1], *model.config.num_centers[:-1]], starts)
    captured = capture(model, ["sa1", "sa2", "sa3", "fc1", "bn1", "fc2", "bn2"])
    with torch.no_grad():
        output = model(points, start_indices=starts, output_hidden_states=True)
        drawn = model(points, generator=torch.Generator().manual_seed(declared["torch_seed_before_forward"]))
    for i, level in enumerate((captured["sa1"], captured["sa2"])):
        case.equal(f"fps_{i}", level.center_index, tensors[f"fps_{i}"].long())
        if f"ball_{i}" in tensors:
            case.equal(f"ball_{i}", level.ball_index[0], tensors[f"ball_{i}"].long())
        case.close(f"sa{i + 1}.0", level.centers.mT, tensors[f"sa{i + 1}.0"])
    case.close("sa3", captured["sa3"].unsqueeze(-1), tensors["sa3"])
    for name in ("fc1", "bn1", "fc2", "bn2"):
        case.close(name, captured[name], tensors[name])
    case.close("output", output.pooled, tensors["output"])
    case.close("output (drawn starts)", drawn.pooled, tensors["output"])
    case.equal("centers", output.centers, captured["sa2"].centers)
    case.equal("tokens", output.tokens, output.hidden_states[-1])


def check_draws(case: Case, declared: dict[str, Any], num_points: list[int], starts: torch.Tensor) -> None:
    """A seed gives the recorded starts, through torch's generator and through one of our own."""
    seed = declared["torch_seed_before_forward"]
    batch = starts.shape[1]
    torch.manual_seed(seed)
    case.equal("fps_start (default generator)", sampling_starts(num_points, batch, random=True), starts)
    generator = torch.Generator().manual_seed(seed)
    case.equal("fps_start (generator)", sampling_starts(num_points, batch, False, generator), starts)


def capture(model: torch.nn.Module, names: list[str]) -> dict[str, Any]:
    """The first output of the named submodules, filled in when the model runs."""
    captured: dict[str, Any] = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: captured.setdefault(name, output)
        )
    return captured
