"""`ulip2 index` and `ulip2 search`."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def add_commands(commands: Any) -> None:
    """Registers both with the sub-parsers of the command `ulip2`."""
    index = commands.add_parser(
        "index",
        help="make a folder of shapes that can be searched, or add to one",
        description="Embed shapes and write them with a FAISS index. Stopped in the middle, the same command goes on. "
        "A file that cannot be used is listed in OUT/errors.parquet.",
    )
    index.add_argument(
        "dataset", metavar="DATASET_OR_FOLDER", help="a triplets dataset by folder or hub name, or a folder of meshes"
    )
    index.add_argument("output_dir", metavar="OUT", help="a new or empty folder; with --append an index")
    _add_model(index)
    index.add_argument("--append", action="store_true", help="add what the index in OUT does not hold yet")
    index.add_argument("--overwrite", action="store_true", help="replace the index that is in OUT")
    index.add_argument("--labels_file", metavar="CSV", help="columns path (a shape's id) and category")
    index.add_argument(
        "--factory",
        help="FAISS factory string, e.g. Flat (exact), HNSW32,SQfp16 or IVF1024,SQ8 (default: by size)",
    )
    index.add_argument("--batch_size", type=int, default=16, help="clouds a forward pass")
    index.set_defaults(run=_index)

    search = commands.add_parser(
        "search",
        help="find shapes of an index by text, picture or shape",
        description="Find the nearest shapes. A text, a picture and a shape together are added up.",
    )
    search.add_argument("index", metavar="INDEX", help="folder or hub name of an index")
    search.add_argument("text", metavar="TEXT", nargs="?", help='what to look for, e.g. "a wooden chair"')
    search.add_argument("--image", metavar="FILE", help="a picture")
    search.add_argument("--shape", metavar="FILE", help="a mesh or a point cloud")
    search.add_argument("--model", metavar="NAME_OR_PATH", help="default: the model that made the index")
    search.add_argument("--tower", metavar="NAME_OR_PATH", help="image-text model, where the model's own has moved")
    search.add_argument("--top_k", type=int, default=10, help="shapes to list")
    search.set_defaults(run=_search)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="NAME_OR_PATH", help="folder or hub name of a Ulip2Model")
    parser.add_argument("--tower", metavar="NAME_OR_PATH", help="image-text model, where the model's own has moved")


def _index(options: argparse.Namespace) -> int:
    from modeling_ulip2.evaluation.embeddings import load_for_evaluation
    from modeling_ulip2.evaluation.split import read_labels

    from .build import Embedder, build_index, read_errors
    from .index import read_info
    from .sources import open_source

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
        print(f"{len(errors):,} could not be used: see errors.parquet there", file=sys.stderr)
    return 0


def _search(options: argparse.Namespace) -> int:
    from PIL import Image

    from modeling_ulip2.evaluation.embeddings import embed_points, load_for_evaluation
    from modeling_ulip2.geometry.shapes import read_shape

    from .index import ShapeIndex, combine

    if not (options.text or options.image or options.shape):
        raise ValueError("give a TEXT, --image or --shape to search for")
    index = ShapeIndex.open(options.index)
    model, feature_extractor, tower = load_for_evaluation(options.model or index.info["model"], options.tower)
    index.require_model(model, feature_extractor)
    embeds = []
    if options.text:
        embeds.append(tower.encode_text([options.text])[0])
    if options.image:
        with Image.open(options.image) as image:
            embeds.append(tower.encode_images([image.convert("RGB")])[0])
    if options.shape:
        cloud = read_shape(options.shape, feature_extractor.num_points).cloud
        embeds.append(embed_points(model, feature_extractor, [cloud], progress=False)[0])
    for match in index.search(combine(embeds), options.top_k):
        row = index.shapes.select_columns(["id", "name"])[match.row]
        print(f"{match.score:.3f}  {row['name']}  ({row['id']})")
    return 0
