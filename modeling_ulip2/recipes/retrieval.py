"""Retrieval among the shapes of a triplets dataset: by text, by image, and back from shapes to text."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modeling_ulip2.data.labels import read_labels
from modeling_ulip2.data.reading import read_split, read_triplets, select_ids
from modeling_ulip2.evaluation import load_templates
from modeling_ulip2.evaluation.embeddings import embed_points, embed_views, load_for_evaluation
from modeling_ulip2.evaluation.reports.report import figure_table
from modeling_ulip2.evaluation.reports.split import default_queries, retrieve, search_shapes, write_sheet
from modeling_ulip2.recipes.evaluation_options import DESCRIPTIONS, RetrievalArguments
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.recipes.options import parse_options
from modeling_ulip2.utils.places import named_or_own


def main(argv: list[str] | None = None, prog: str | None = None) -> dict[str, Any]:
    args, hub = parse_options((RetrievalArguments, HubArguments), argv, DESCRIPTIONS["retrieval"], prog)
    args.model = named_or_own(args.model)
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)

    triplets = read_triplets(args.dataset, **hub.of_dataset)
    labels = read_labels(args.labels_file, triplets["id"]) if args.labels_file else {}
    if args.split_file:
        triplets = select_ids(triplets, read_split(args.split_file)[args.split], args.split)

    model, feature_extractor, tower = load_for_evaluation(args.model, args.tower, **hub.of_model)
    point_embeds = embed_points(model, feature_extractor, triplets, args.batch_size)  # (N, D)
    view_embeds = embed_views(tower, triplets, draw=args.seed) if args.images else None

    categories = set(labels.values())
    queries = {text: text if text in categories else None for text in args.query} or default_queries(triplets, labels)
    found = search_shapes(
        triplets, point_embeds, tower.encode_text, queries, load_templates(args.templates), labels, args.top_k
    )
    for query, hits in found.items():
        print(f"{query}")
        for hit in hits:
            print(f"  {hit.score:.3f}  {hit.name}  ({hit.id})")
    write_sheet(output_dir / "queries.png", triplets, found)

    evaluations = retrieve(triplets, point_embeds, tower.encode_text, view_embeds, args.seed)
    for direction, evaluation in evaluations.items():
        print(f"\n{direction}: {len(evaluation.result.ranks)} queries, {evaluation.result.gallery_size} candidates\n")
        print("\n".join(figure_table(evaluation)))
    record = {
        "arguments": vars(args) | hub.decisive,
        "tower": tower.fingerprint,
        "queries": {query: [asdict(hit) for hit in hits] for query, hits in found.items()},
        "metrics": {direction: evaluation.to_dict() for direction, evaluation in evaluations.items()},
    }
    (output_dir / "retrieval.json").write_text(
        json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return record
