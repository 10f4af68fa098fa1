"""`ulip2 export`: a model's point encoder as a file for other runtimes."""

from __future__ import annotations

import argparse
import os
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser, add_hub_arguments, hub_options
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
    parser.group("model").add_argument(
        "folder", metavar="NAME_OR_PATH", help="folder or hub name of a model of point clouds"
    )
    add = parser.group("output").add_argument
    add("--format", choices=["onnx", "torch"], required=True, help="what to write")
    add("--quantize", action="store_true", help="also write onnx/model_quantized.onnx, with int8 weights, for CPUs")
    add(
        "--output",
        metavar="OUT",
        help="a new folder for a copy of the model with what is written (default: the model's own folder; of a hub "
        "name there is none)",
    )
    add_hub_arguments(parser, "model")


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2.exporting import export_copy, export_folder
    from modeling_ulip2.utils.places import find_folder

    folder = find_folder(options.folder, **hub_options(options))
    if options.output is not None:
        export = export_copy(folder, options.output, options.format, quantize=options.quantize)
    elif os.path.isdir(os.path.expanduser(options.folder)):
        export = export_folder(folder, options.format, quantize=options.quantize)
    else:
        raise ValueError(f"{options.folder} lies on the hub: say where the copy with the exported file goes, --output")
    rows = [("written", f"{file} ({file.stat().st_size / 1e6:.1f} MB)") for file in export.files]
    rows.append(("deviation", f"{export.deviation:.1e} from the model, relative, on random clouds"))
    if export.quantized_deviation is not None:
        rows.append(("of int8", f"{export.quantized_deviation:.1e}"))
    print_rows(rows)
    return DONE
