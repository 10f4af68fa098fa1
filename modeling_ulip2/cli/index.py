"""`ulip2 index`: a folder of shapes that can be searched."""

from __future__ import annotations

import argparse
from typing import Any

from .shared import DONE, add_batch_size, add_command, add_model, add_tower, tell


def register(commands: Any) -> None:
    parser = add_command(
        commands,
        "index",
        run,
        "make a folder of shapes that can be searched, or add to one",
        "Embed shapes and write them with a FAISS index. Stopped in the middle, the same command goes on. "
        "A file that cannot be used is listed in OUT/errors.parquet.",
    )
    parser.add_argument(
        "dataset", metavar="DATASET_OR_FOLDER", help="a triplets dataset by folder or hub name, or a folder of meshes"
    )
    parser.add_argument("output_dir", metavar="OUT", help="a new or empty folder; with --append an index")
    add_model(parser)
    add_tower(parser)
    parser.add_argument("--append", action="store_true", help="add what the index in OUT does not hold yet")
    parser.add_argument("--overwrite", action="store_true", help="replace the index that is in OUT")
    parser.add_argument("--labels_file", metavar="CSV", help="columns path (a shape's id) and category")
    parser.add_argument(
        "--factory",
        help="FAISS factory string, e.g. Flat (exact), HNSW32,SQfp16 or IVF1024,SQ8 (default: by size)",
    )
    add_batch_size(parser)


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2.evaluation.embeddings import load_for_evaluation
    from modeling_ulip2.evaluation.split import read_labels
    from modeling_ulip2.search.build import Embedder, build_index, read_errors
    from modeling_ulip2.search.index import read_info
    from modeling_ulip2.search.sources import open_source

    labels = read_labels(options.labels_file) if options.labels_file else None
    model, feature_extractor, tower = load_for_evaluation(options.model, options.tower)
    num_points = read_info(options.output_dir)["num_points"] if options.append else feature_extractor.num_points
    source = open_source(options.dataset, num_points, labels)
    index = build_index(
        source,
        options.output_dir,
        Embedder(model, feature_extractor, options.model, tower.name, options.batch_size),
        factory=options.factory,
        append=options.append,
        overwrite=options.overwrite,
    )
    print(f"{len(index):,} shapes of {index.info['dim']} numbers in {options.output_dir} ({index.info['factory']})")
    if errors := read_errors(options.output_dir):
        tell(f"{len(errors):,} could not be used: see errors.parquet there")
    return DONE
