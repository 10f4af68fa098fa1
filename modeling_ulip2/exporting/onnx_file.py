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
# Of int8 weights, whose error depends on the model: its user judges it, and this only tells a file that is broken.
_QUANTIZED_TOLERANCE = 0.5


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
    with quiet():
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
    _forget_its_making(written.model)
    written.save(str(path))
    return _checked(side, path, _TOLERANCE)


def quantize_onnx(path: str | Path, output: str | Path, model: Any) -> float:
    """Writes a copy of an ONNX file with int8 weights, for CPUs: activations are quantized as they come.

    Products with weights are quantized, one scale per output channel; sampling, grouping and norms stay in float32.

    Args:
        path: a file of `export_onnx`.
        output: file to write, which is run once.
        model: that of the file.

    Returns:
        the largest relative deviation from the model on random clouds.

    Raises:
        ValueError: the file deviates by more than a half, so that it is no form of the model.
    """
    require_package("onnxruntime", "onnx")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            str(path),
            str(output),
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
    return _checked(point_side(model), Path(output), _QUANTIZED_TOLERANCE)


def _checked(side: PointSide, path: Path, tolerance: float) -> float:
    """How far a file deviates from the model; with more than `tolerance` it is not kept."""
    try:
        clouds = example_clouds(side, batch=3, points=1500)
        with torch.no_grad():
            expected = [output.cpu() for output in side(clouds)]
        found = make_session(path).run(list(side.outputs), {"point_values": clouds.cpu().numpy()})
        deviation = largest_deviation([torch.from_numpy(output) for output in found], expected)
        check_deviation(deviation, tolerance)
    except BaseException:
        for file in (path, path.with_name(path.name + ".data")):
            file.unlink(missing_ok=True)
        raise
    return deviation


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


def _forget_its_making(model: Any) -> None:
    """Without the exporter's notes, a megabyte of them, which tell the folders of this machine."""
    model.metadata_props.clear()
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for function in (model.graph, *model.functions.values()):
        function.metadata_props.clear()
        for node in function.all_nodes():
            node.metadata_props.clear()
            values += node.outputs
    for value in values:
        value.metadata_props.clear()


@contextlib.contextmanager
def quiet() -> Any:
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
