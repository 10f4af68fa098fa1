"""Whether the installed code, on this machine and device, gives the numbers that it should.

Two kinds of recorded numbers are compared with what comes out here: small cases that the package carries, one or more
for every kind of encoder, and the embeddings that a converted folder holds of itself.

The cases of the package were recorded with a version of it that reproduces all numbers recorded from the published
code (`tests/test_parity.py`). Their weights follow from a seed, so that a case is no larger than its input and output:

    python -m modeling_ulip2.conversion.verify modeling_ulip2/conversion/data/verification.safetensors
"""

from __future__ import annotations

import copy
import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, PreTrainedModel

from modeling_ulip2.models.configuration_slip import SlipConfig
from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS
from modeling_ulip2.models.modeling_slip import SlipModel
from modeling_ulip2.models.modeling_ulip2 import Ulip2Model
from modeling_ulip2.utils.places import find_folder

BUILT_IN = Path(__file__).with_name("data") / "verification.safetensors"
RECORD = "verification.safetensors"
# Deviations up to the larger of the two are rounding.
ATOL, RTOL = 1e-5, 1e-4

_BLOCKS = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_groups": 12, "group_size": 8}
_UNI3D = {**_BLOCKS, "intermediate_size": 40, "encoder_dims": 16}
_PPAT = {**_BLOCKS, "head_dim": 8, "intermediate_size": 40, "group_radius": 0.4, "set_abstraction_dim": 16}
_MSG = {
    "multi_scale": True,
    "radii": ((0.2, 0.4), (0.4, 0.8)),
    "num_neighbors": ((4, 8), (8, 8)),
    "mlp_dims": (((8, 8), (8, 12)), ((16, 16), (16, 20))),
    "num_centers": (24, 8),
    "global_dims": (16, 24),
    "head_dims": (20, 16),
}
_SSG = _MSG | {
    "multi_scale": False,
    "radii": ((0.3,), (0.6,)),
    "num_neighbors": ((8,), (8,)),
    "mlp_dims": (((8, 12),), ((16, 20),)),
}
_POINTMLP = {
    "num_points": 48,
    "embed_dim": 8,
    "dim_expansion": (2, 2),
    "pre_blocks": (1, 1),
    "pos_blocks": (1, 1),
    "k_neighbors": (8, 8),
    "reducers": (2, 2),
    "head_dims": (20, 16),
}
_POINTNEXT = {"width": 8, "head_dims": (20, 16)}
# What the package carries: case -> model_type and configuration.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "pointbert_xyzrgb": ("ulip2_pointbert", {**_BLOCKS, "in_channels": 6, "encoder_dims": 16}),
    "pointbert_xyz": ("ulip2_pointbert", {**_BLOCKS, "in_channels": 3, "encoder_dims": 16}),
    "pointnext_small": ("ulip2_pointnext", _POINTNEXT),
    "pointnext_base": ("ulip2_pointnext", {**_POINTNEXT, "blocks": (1, 2, 2, 1, 1, 1), "sa_residual": False}),
    "pointnet2_ssg": ("ulip2_pointnet2", _SSG),
    "pointnet2_msg": ("ulip2_pointnet2", _MSG),
    "pointmlp": ("ulip2_pointmlp", _POINTMLP),
    "pointmlp_elite": ("ulip2_pointmlp", {**_POINTMLP, "res_expansion": 0.25}),
    "ppat": ("ulip2_ppat", _PPAT),
    "ppat_relative_position": ("ulip2_ppat", {**_PPAT, "relative_position_bias": True}),
    "uni3d_gelu": ("ulip2_uni3d", {**_UNI3D, "fused_qkv": True, "mlp_kind": "gelu"}),
    "uni3d_swiglu": ("ulip2_uni3d", {**_UNI3D, "fused_qkv": True, "mlp_kind": "swiglu"}),
    "uni3d_swiglu_norm": ("ulip2_uni3d", {**_UNI3D, "fused_qkv": False, "mlp_kind": "swiglu_norm"}),
    "slip": (
        SlipConfig.model_type,
        {
            "projection_dim": 16,
            "vocab_size": 50,
            "max_position_embeddings": 12,
            "text_hidden_size": 16,
            "text_num_hidden_layers": 2,
            "text_num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
            "vision_hidden_size": 16,
            "vision_num_hidden_layers": 2,
            "vision_num_attention_heads": 2,
        },
    ),
}


class Deviation(NamedTuple):
    """Largest absolute difference in one comparison, and its size in units of the tolerance (up to 1: rounding)."""

    case: str
    tensor: str
    absolute: float
    of_tolerance: float


def verify_built_in(device: str | torch.device = "cpu", model_type: str | None = None) -> list[Deviation]:
    """Runs the cases of the package, all or those of one kind of model, and compares."""
    found = []
    with safe_open(str(BUILT_IN), framework="pt") as file:
        configs = json.loads(file.metadata()["configs"])
        names = list(file.keys())
        for case, (kind, fields) in configs.items():
            if model_type not in (None, kind):
                continue
            tensors = {name.partition("/")[2]: file.get_tensor(name) for name in names if name.startswith(f"{case}/")}
            model = _seeded_model(kind, fields).to(device)  # type: ignore[arg-type]
            found += _compare(case, model, tensors, device)
    return found


def verify_folder(folder: str | os.PathLike[str], device: str | torch.device = "cpu", **hub: Any) -> list[Deviation]:
    """Runs the package's cases of a model's kind, and compares the model with its own record.

    Args:
        folder: of the model, or its name on the hub.
        hub: `revision`, `token` and `cache_dir` of a hub name.

    Raises:
        FileNotFoundError: there is no such folder, nor on the hub, or it holds no configuration.
        ValueError: it is no model of this package.
    """
    folder = find_folder(os.fspath(folder), **hub)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: it is no model folder.")
    config = AutoConfig.from_pretrained(folder)
    kind = getattr(config, "point_config", config).model_type
    if kind not in {model_type for model_type, _ in CASES.values()}:
        raise ValueError(f"{folder} holds a model of type {kind!r}, of which the package has no recorded cases.")
    found = verify_built_in(device, kind)
    if (folder / RECORD).is_file():
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        with safe_open(str(folder / RECORD), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        found += _compare("this model", model, tensors, device)
    return found


def record(model: PreTrainedModel, folder: Path) -> None:
    """Writes what `model` makes of two clouds, computed in float32 on the CPU, beside its weights."""
    channels = getattr(model.config, "point_config", model.config).in_channels
    inputs = {"point_values": clouds(1024, channels)}
    # `model.dtype` is that of one parameter, and files mix precisions
    whole = all(value.dtype == torch.float32 for value in model.parameters())
    in_float32 = model if whole else copy.deepcopy(model).float()
    outputs = _run(in_float32, inputs)
    tensors = {f"input.{name}": value for name, value in inputs.items()} | outputs
    save_file(tensors, folder / RECORD)


def record_built_in(path: str | os.PathLike[str]) -> None:
    """Writes the cases of the package."""
    tensors: dict[str, torch.Tensor] = {}
    for case, (kind, fields) in CASES.items():
        model = _seeded_model(kind, fields)
        inputs = _inputs(model)
        outputs = _run(model, inputs)
        tensors |= {f"{case}/input.{name}": value for name, value in inputs.items()}
        tensors |= {f"{case}/{name}": value for name, value in outputs.items()}
    save_file(tensors, path, metadata={"configs": json.dumps(CASES)})


def clouds(num_points: int, channels: int, batch: int = 2) -> torch.Tensor:
    """Reproducible clouds (batch, num_points, channels) in the unit sphere; color and height behind xyz."""
    random = np.random.RandomState(0)  # its streams are frozen, unlike those of newer generators
    xyz = random.standard_normal((batch, num_points, 3))
    xyz *= random.uniform(0.2, 1, (batch, num_points, 1)) / np.linalg.norm(xyz, axis=-1, keepdims=True)
    rgb = random.uniform(0, 1, (batch, num_points, 3))
    height = xyz[..., 1:2] - xyz[..., 1:2].min(axis=1, keepdims=True)
    columns = {3: [xyz], 4: [xyz, height], 6: [xyz, rgb], 7: [xyz, rgb, height]}
    if channels not in columns:
        raise ValueError(f"Clouds have 3, 4, 6 or 7 columns, not {channels}.")
    return torch.from_numpy(np.concatenate(columns[channels], axis=-1)).float()


def _seeded_model(model_type: str, fields: dict[str, Any]) -> PreTrainedModel:
    """A model in evaluation mode whose weights follow from their names alone."""
    if model_type == SlipConfig.model_type:
        model: PreTrainedModel = SlipModel(SlipConfig(**fields))
    else:
        classes = POINT_ENCODERS[model_type]
        assert classes.model_class is not None
        model = classes.model_class(classes.config_class(**fields))
    for name, tensor in model.state_dict().items():
        random = np.random.RandomState(zlib.crc32(name.encode()))
        shape = tuple(tensor.shape)
        if name.endswith("running_var"):
            values = random.uniform(0.5, 1.5, shape)
        elif tensor.ndim == 1 and name.endswith("weight"):  # norms
            values = random.uniform(0.5, 1.5, shape)
        elif tensor.ndim <= 1:
            values = 0.1 * random.standard_normal(shape)
        else:
            values = random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(np.asarray(values)))
    return model.eval()


def _inputs(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    if isinstance(model, SlipModel):
        random = np.random.RandomState(0)
        config = model.config
        ids = random.randint(0, config.vocab_size, (3, config.max_position_embeddings))
        pixels = random.standard_normal((2, 3, config.image_size, config.image_size))
        return {"input_ids": torch.from_numpy(ids), "pixel_values": torch.from_numpy(pixels).float()}
    return {"point_values": clouds(96, model.config.in_channels)}


@torch.no_grad()
def _run(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if isinstance(model, SlipModel):
        text: Any = model.get_text_features(inputs["input_ids"])
        image: Any = model.get_image_features(inputs["pixel_values"])
        outputs = {"text": text.pooler_output, "image": image.pooler_output}
    elif isinstance(model, Ulip2Model):
        features: Any = model.get_point_features(inputs["point_values"])
        outputs = {"point_features": features.pooler_output}
    else:
        encoded = model(inputs["point_values"])
        outputs = {"tokens": encoded.tokens, "pooled": encoded.pooled, "centers": encoded.centers}
    return {name: value.float().contiguous() for name, value in outputs.items()}


def _compare(
    case: str, model: PreTrainedModel, tensors: dict[str, torch.Tensor], device: str | torch.device
) -> list[Deviation]:
    inputs = {k.removeprefix("input."): v.to(device) for k, v in tensors.items() if k.startswith("input.")}
    # by default cuDNN rounds what it convolves to TensorFloat-32, ten bits of mantissa
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        outputs = _run(model, inputs)
    found = []
    for name, value in outputs.items():
        expected = tensors[name].double()
        difference = (value.cpu().double() - expected).abs()
        ratio = difference / expected.abs().mul(RTOL).clamp(min=ATOL)
        # a NaN must not pass for a small number
        worst = torch.nan_to_num(ratio, nan=torch.inf).max().item()
        found.append(Deviation(case, name, difference.max().item(), worst))
    return found


if __name__ == "__main__":
    record_built_in(sys.argv[1])
