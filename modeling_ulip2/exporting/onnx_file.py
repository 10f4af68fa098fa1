"""A point encoder as an ONNX file, sampling and grouping included."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from pathlib import Path
from typing import Any

import torch

from modeling_ulip2.utils.packages import require_package

from .onnx_runtime import make_session
from .program import PointSide, check_deviation, example_clouds, largest_deviation, point_side, trace

# Sums of other kernels come in another order.
_TOLERANCE = 1e-3


def export_onnx(model: Any, path: str | Path) -> float:
    """Writes a model's point side as an ONNX file, which is run once and compared.

    The graph takes `point_values` (B, N, C) float32, any number of clouds and points, and gives `pooled` (B, D),
    `tokens` (B, G, width), `centers` (B, G, 3) and, of a model with a projection, `point_embeds` (B, projection_dim),
    which are not normalized. Weights of more than 2 GB go into a file beside it.

    Args:
        model: a `Ulip2Model`, `Ulip2PointModel`, `Ulip2PointModelWithProjection` or point encoder, in evaluation mode.
        path: file to write, `.onnx`.

    Returns:
        the largest relative deviation from the model on other clouds than the traced ones.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is missing.
        ValueError: no such model; or the file deviates from it.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require_package(package, "onnx")
    from .onnx_ops import OPSET, translations

    side = point_side(model)
    path = Path(path)
    with _quiet():
        written = torch.onnx.export(
            trace(side),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=translations(),
            input_names=["point_values"],
            output_names=list(side.outputs),
            optimize=True,
        )
    assert written is not None
    _name_sizes(written.model.graph)
    written.save(str(path))
    try:
        deviation = _deviation(side, path)
        check_deviation(deviation, _TOLERANCE)
    except BaseException:
        for file in (path, path.with_name(path.name + ".data")):
            file.unlink(missing_ok=True)
        raise
    return deviation


def quantize_onnx(path: str | Path, output: str | Path) -> None:
    """Writes a copy of an ONNX file with int8 weights, for CPUs: activations are quantized as they come.

    Products with weights are quantized, one scale per output channel; sampling, grouping and norms stay in float32.

    Args:
        path: a file of `export_onnx`.
        output: file to write.
    """
    require_package("onnxruntime", "onnx")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            str(path),
            str(output),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )


def _deviation(side: PointSide, path: Path) -> float:
    clouds = example_clouds(side, batch=3, points=1500)
    with torch.no_grad():
        expected = side(clouds)[0].cpu()
    (found,) = make_session(path).run(["pooled"], {"point_values": clouds.cpu().numpy()})
    return largest_deviation(torch.from_numpy(found), expected)


def _name_sizes(graph: Any) -> None:
    """`batch` and `points` instead of the tracer's own names for the sizes that vary, everywhere in the graph.

    onnxruntime takes one name for one size, so that two names of the same size mislead it.
    """
    (values,) = graph.inputs
    names = {str(values.shape[0]): "batch", str(values.shape[1]): "points"}
    for value in (*graph.inputs, *(output for node in graph.all_nodes() for output in node.outputs)):
        for axis, size in enumerate(value.shape or ()):
            name = str(size.value) if hasattr(size, "value") else str(size)
            for old, new in names.items():
                name = re.sub(rf"\b{old}\b", new, name)
            if hasattr(size, "value") and size.value is not None:
                value.shape[axis] = name


@contextlib.contextmanager
def _quiet() -> Any:
    """Without the exporter's progress on stdout and its warnings for its own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
