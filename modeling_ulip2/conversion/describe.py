"""What a checkpoint is: a published file or a model folder, in rows of name and value."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import AutoConfig, PreTrainedConfig

from modeling_ulip2.models.configuration_ulip2 import Ulip2Config
from modeling_ulip2.utils.places import find_folder

from .assemble import convert
from .checkpoint import read_checkpoint
from .folder import release_of
from .verify import RECORD

Rows = list[tuple[str, str]]

# Names that end so are meant as files, whether they are there or not.
CHECKPOINT_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors")


def describe(path: str | os.PathLike[str], **hub: Any) -> Rows:
    """Rows about a published checkpoint file, or a model that `save_pretrained` wrote, by its folder or hub name.

    Args:
        hub: `revision`, `token` and `cache_dir` of a hub name.

    Raises:
        FileNotFoundError: there is nothing, neither here nor on the hub, or a folder without config.json.
        ValueError: the file is no checkpoint, or none of the published layouts; the message says why.
    """
    if Path(path).is_file() or Path(path).suffix in CHECKPOINT_SUFFIXES:
        return _describe_file(Path(path))
    return _describe_folder(find_folder(os.fspath(path), **hub))


def _describe_file(path: Path) -> Rows:
    checkpoint = read_checkpoint(path)
    conversion = convert(checkpoint)
    release = release_of(conversion, checkpoint)
    rows = [
        ("file", f"{path} ({_bytes(path.stat().st_size)})"),
        ("release", release.title if release else "none that is known; of the layout below"),
        ("layout", conversion.layout.name),
        ("tensors", f"{len(checkpoint.state_dict)}, of which {len(conversion.unused)} are not needed"),
        ("epoch", "not said" if checkpoint.epoch is None else str(checkpoint.epoch)),
    ]
    rows += _describe_config(conversion.model.config)
    rows.append(("parameters", f"{conversion.model.num_parameters():,}"))
    if conversion.tower is not None:
        rows.append(("image-text model", f"in the file: SLIP, {conversion.tower.num_parameters():,} parameters"))
    if release is not None:
        rows += [("license", release.license), ("source", release.source)]
        rows += [(task, figures) for task, figures in release.accuracy]
    return rows


def _describe_folder(folder: Path) -> Rows:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: it is no model folder.")
    config = AutoConfig.from_pretrained(folder)
    weights = sorted(folder.glob("*.safetensors"))
    weights = [path for path in weights if path.name != RECORD]
    tensors: dict[str, tuple[int, str]] = {}
    for file_path in weights:
        with safe_open(str(file_path), framework="pt") as file:
            for name in file.keys():
                part = file.get_slice(name)
                tensors[name] = (math.prod(part.get_shape()), part.get_dtype())
    size = sum(path.stat().st_size for path in weights)
    architectures = ", ".join(config.architectures or ["not said"])
    precision = ", ".join(sorted({dtype for _, dtype in tensors.values() if dtype.startswith(("F", "BF"))}))
    rows = [
        ("folder", f"{folder} ({_bytes(size)} of weights, {precision or 'none'})"),
        ("class", architectures),
        *_describe_config(config),
        ("tensors", f"{len(tensors)}, {sum(count for count, _ in tensors.values()):,} values with buffers"),
    ]
    if (folder / "preprocessor_config.json").is_file():
        features = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        kept = ("num_points", "in_channels", "normalize", "fill_color", "sampling", "up_axis", "axes")
        rows.append(("clouds", ", ".join(f"{name} {features[name]}" for name in kept if name in features)))
    rows.append(("remote code", ", ".join(sorted(path.name for path in folder.glob("*.py"))) or "none"))
    rows.append(("recorded embeddings", "yes" if (folder / RECORD).is_file() else "no"))
    return rows


def _describe_config(config: PreTrainedConfig) -> Rows:
    encoder: Any = getattr(config, "point_config", config)
    defaults = PreTrainedConfig().to_dict().keys()
    fields = {name: value for name, value in encoder.to_dict().items() if name not in {*defaults, "model_type"}}
    rows = [
        (
            "model type",
            config.model_type if encoder is config else f"{config.model_type}, encoder {encoder.model_type}",
        ),
        ("settings", ", ".join(f"{name} {value}" for name, value in fields.items() if not name.startswith("_"))),
    ]
    if isinstance(config, Ulip2Config):
        bias = " and bias" if config.projection_bias else ""
        rows.append(("projection", f"{encoder.output_dim} -> {config.projection_dim}{bias}"))
        embedded: Any = config.clip_config
        reference = f"embedded, {embedded.model_type}" if embedded is not None else config.clip_name_or_path
        rows.append(("image-text model", reference or "none referred to"))
    return rows


def _bytes(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
