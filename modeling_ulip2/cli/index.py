"""`ulip2 index`: a folder of shapes that can be searched."""

from __future__ import annotations

import argparse
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser, add_hub_arguments, dataset_hub_options, hub_options
from modeling_ulip2.utils.places import named_or_own
from modeling_ulip2.utils.scripts import status

from .shared import (
    add_batch_size,
    add_command,
    add_device,
    add_model,
    add_reading,
    add_tower,
    check_root,
    tell,
    tell_failure,
    tell_warnings,
)


def register(commands: Any) -> str:
    return add_command(
        commands,
        "index",
        run,
        "make a folder of shapes that can be searched, or add to one",
        _fill,
        "Embed shapes and write them with a FAISS index. Stopped in the middle, the same command goes on. "
        "A file that cannot be used is listed in OUT/errors.parquet.",
    )


def _fill(parser: CommandParser) -> None:
    parser.group("shapes").add_argument(
        "dataset",
        metavar="DATASET_OR_FOLDER",
        help="a triplets dataset by folder or hub name, or a folder of meshes and point files",
    )
    add = parser.group("output").add_argument
    add("output_dir", metavar="OUT", help="a new or empty folder; with --append an index")
    add_model(parser)
    add_tower(parser)
    add("--append", action="store_true", help="add what the index in OUT does not hold yet")
    add("--overwrite", action="store_true", help="replace the index that is in OUT")
    parser.group("shapes").add_argument(
        "--labels_file", metavar="CSV", help="columns path (a shape's id) and category"
    )
    add(
        "--factory",
        help="FAISS factory string, e.g. Flat (exact), HNSW32,SQfp16 or IVF1024,SQ8 (default: by size)",
    )
    add_reading(parser)
    add_hub_arguments(parser, "model", and_dataset=True)
    add_batch_size(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2 import Ulip2Embedder
    from modeling_ulip2.data.labels import check_label_ids, read_labels
    from modeling_ulip2.search.build import IndexReport, build_index
    from modeling_ulip2.search.index import read_info
    from modeling_ulip2.search.shape_sources import open_source

    check_root(options.root)
    model = named_or_own(options.model)
    labels = read_labels(options.labels_file) if options.labels_file else None
    embedder = Ulip2Embedder.from_pretrained(
        model,
        tower=options.tower,
        device=options.device,
        batch_size=options.batch_size,
        **hub_options(options),
    )
    extractor = embedder.feature_extractor
    source = open_source(
        options.dataset,
        read_info(options.output_dir)["num_points"] if options.append else extractor.num_points,
        labels,
        hub=dataset_hub_options(options),
        root=options.root,
        up_axis=options.up_axis,
        sampling=extractor.sampling,
        default_up_axis=extractor.up_axis,
        seed=extractor.seed or 0,
    )
    if labels is not None:
        check_label_ids(labels, source.ids, options.labels_file)
    report = IndexReport()
    try:
        index = build_index(
            source,
            options.output_dir,
            embedder,
            factory=options.factory,
            append=options.append,
            overwrite=options.overwrite,
            report=report,
        )
    finally:
        for name, warnings in report.warnings.items():
            tell_warnings(name, warnings)
        for failure in report.failures:
            tell_failure(failure)
        for name, reason in report.skipped.items():
            tell(f"{name}: skipped, {reason}")
    print(f"{len(index):,} shapes of {index.info['dim']} numbers in {options.output_dir} ({index.info['factory']})")
    counts = {
        "added": len(report.added),
        "there already": report.present,
        "could not be used (see errors.parquet there)": len(report.failures),
        "skipped": len(report.skipped),
    }
    print("; ".join(f"{count:,} {what}" for what, count in counts.items() if count or what == "added"))
    return status(len(report.failures), len(source.ids))
