"""`ulip2 export`: a model's point encoder as a file for other runtimes."""

from __future__ import annotations

import argparse
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser
from modeling_ulip2.utils.scripts import DONE

from .shared import add_command, print_rows


def register(commands: Any) -> str:
    return add_command(
        commands,
        "export",
        run,
        "write the point encoder of a model as ONNX or as a torch program",
        _fill,
        "Write the point encoder of a model, and its projection, beside its weights: onnx/model.onnx, sampling and "
        "grouping included, or torch/model.pt2. The file takes any number of clouds and points; it is run once and "
        "compared with the model before it takes its place.",
    )


def _fill(parser: CommandParser) -> None:
    parser.group("model").add_argument("folder", metavar="FOLDER", help="folder of a model of point clouds")
    add = parser.group("output").add_argument
    add("--format", choices=["onnx", "torch"], required=True, help="what to write")
    add("--quantize", action="store_true", help="also write onnx/model_quantized.onnx, with int8 weights, for CPUs")


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2.exporting import export_folder

    export = export_folder(options.folder, options.format, quantize=options.quantize)
    rows = [("written", f"{file} ({file.stat().st_size / 1e6:.1f} MB)") for file in export.files]
    rows.append(("deviation", f"{export.deviation:.1e} from the model, relative, on random clouds"))
    if export.quantized_deviation is not None:
        rows.append(("of int8", f"{export.quantized_deviation:.1e}"))
    print_rows(rows)
    return DONE
