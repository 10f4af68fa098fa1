"""`pointnext_s/<cfg>`: the encoder with its stages, the indices of its sampling and of its balls."""

from __future__ import annotations

import torch

from modeling_ulip2 import PointNextConfig, PointNextModel
from modeling_ulip2.conversion.pointconv import pointnext_config
from modeling_ulip2.models.point_ops import gather_points
from tests.parity import Case, read_json
from tests.parity.pointbert import cases, load_weights
from tests.parity.pointnet2_ssg import capture

__all__ = ["cases", "check"]


def check(case: Case) -> None:
    json_path, tensor_path, weights_path, weights_json = case.files
    declared, described, tensors = read_json(json_path), read_json(weights_json), case.open(tensor_path)
    assert declared["mode"] == "eval", f"{case.name}: unknown mode {declared['mode']!r}"
    assert declared["input_layout"] == "x, y, z, height", f"{case.name}: unknown input {declared['input_layout']!r}"
    config = PointNextConfig(**pointnext_config(described["config"]))
    model = PointNextModel(config).eval()
    model.load_state_dict(load_weights(weights_path))
    case.equal("n_parameters", model.num_parameters(), described["n_parameters"])
    case.equal("output_dim", config.output_dim, described["output_dim"])
    case.equal("channels", config.channels, described["channels"])
    for i, radii in enumerate(config.radii):
        case.close(f"radii of stage {i}", radii, described["radii"][i])
        case.equal(f"neighbors of stage {i}", [config.num_neighbors] * len(radii), described["nsample"][i])

    points = tensors["input"]
    last = len(config.strides) - 1
    names = [f"encoder.encoder.{i}.{blocks - 1}" for i, blocks in enumerate(config.blocks)]
    captured = capture(model, names)
    with torch.no_grad():
        output = model(points, output_hidden_states=True)
    xyz, sampled = points[..., :3], 0
    for i, name in enumerate(names):
        layer = model.encoder.encoder[i][0]
        if 0 < i < last or (i == 0 and config.strides[0] > 1):
            center_index = layer.sample(xyz)
            centers = gather_points(xyz, center_index)
            case.equal(f"fps_{sampled}", center_index, tensors[f"fps_{sampled}"].long())
            case.equal(f"ball_{sampled}", layer.group.query(centers, xyz), tensors[f"ball_{sampled}"].long())
            xyz, sampled = centers, sampled + 1
        case.equal(f"stage_{i}.xyz", xyz, tensors[f"stage_{i}.xyz"])
        features = captured[name].unsqueeze(1) if i == last else captured[name].features
        case.close(f"stage_{i}.feat", features.mT, tensors[f"stage_{i}.feat"])
    case.equal("centers", output.centers, xyz)
    case.equal("tokens", output.tokens, output.hidden_states[-1])
    case.close("output", output.pooled, tensors["output"])
