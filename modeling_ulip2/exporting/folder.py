"""Exports beside the weights of a model folder, laid out as Optimum does."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .onnx_file import export_onnx, quantize_onnx
from .onnx_runtime import ONNX_FILE, ONNX_FOLDER, QUANTIZED_FILE
from .torch_file import export_torch

FORMATS = ("onnx", "torch")
TORCH_FOLDER = "torch"
TORCH_FILE = "model.pt2"


@dataclass(frozen=True)
class Export:
    """What an export wrote: files, and the largest relative deviations from the model, of int8 by itself."""

    files: tuple[Path, ...]
    deviation: float
    quantized_deviation: float | None = None


def export_folder(folder: str | Path, format: str, model: Any = None, quantize: bool = False) -> Export:
    """Writes `onnx/model.onnx` or `torch/model.pt2` into a model folder.

    A file that is there already is replaced when the new one is whole and computes what the model computes; where
    anything fails it stays as it was.

    Args:
        folder: of a `Ulip2Model`, `Ulip2PointModel`, `Ulip2PointModelWithProjection` or point encoder.
        format: one of `FORMATS`.
        model: what to export, in evaluation mode; default: the model of the folder.
        quantize: also write `onnx/model_quantized.onnx`, with int8 weights.

    Raises:
        ImportError: a package for ONNX is missing.
        ValueError: unknown format; no model of point clouds; or the export deviates from it.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}.")
    if quantize and format != "onnx":
        raise ValueError("only format='onnx' can be quantized.")
    folder = Path(folder)
    if model is None:
        model = _load(folder)
    quantized = None
    target = folder / (ONNX_FOLDER if format == "onnx" else TORCH_FOLDER)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=folder) as scratch:
        if format == "onnx":
            deviation = export_onnx(model, Path(scratch, ONNX_FILE))
            if quantize:
                quantized = quantize_onnx(Path(scratch, ONNX_FILE), Path(scratch, QUANTIZED_FILE), model)
        else:
            deviation = export_torch(model, Path(scratch, TORCH_FILE))
        target.mkdir(exist_ok=True)
        # a file of weights comes before the graph that names it
        made = sorted(Path(scratch).iterdir(), key=lambda file: file.suffix == ".onnx")
        files = tuple(file.replace(target / file.name) for file in made)
    return Export(files, deviation, quantized)


def export_copy(folder: str | Path, output: str | Path, format: str, quantize: bool = False) -> Export:
    """As `export_folder`, into a copy of the model's folder, which is there when all of it is.

    Args:
        output: a new or empty folder.

    Raises:
        FileExistsError: there is something in it.
    """
    output = Path(output).expanduser().absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} is not empty: choose another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        copy = Path(scratch, output.name)
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".git", ".cache"))  # the hub's cache holds links
        export = export_folder(copy, format, quantize=quantize)
        copy.replace(output)
    return Export(tuple(output / file.relative_to(copy) for file in export.files), export.deviation)


def _load(folder: Path) -> Any:
    import torch
    from transformers import AutoModel

    from modeling_ulip2.utils.places import find_model

    return AutoModel.from_pretrained(find_model(folder), dtype=torch.float32).eval()
