"""Zero-shot classification: every shape gets the class whose prompts lie nearest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from modeling_ulip2.data.benchmarks import read_benchmark_manifest
from modeling_ulip2.data.labels import class_names_of, read_labels
from modeling_ulip2.data.reading import read_split, read_triplets, select_ids
from modeling_ulip2.evaluation import class_embeddings, evaluate_zero_shot, load_class_names, load_templates
from modeling_ulip2.evaluation.benchmarks.run import REPORT, BenchmarkRun, distributed_state, evaluate_benchmark
from modeling_ulip2.evaluation.embeddings import embed_points, load_for_evaluation
from modeling_ulip2.evaluation.metrics.controls import Evaluation
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult
from modeling_ulip2.evaluation.reports.figures import confusion_matrix
from modeling_ulip2.evaluation.reports.report import figure_table
from modeling_ulip2.recipes.evaluation_options import DESCRIPTIONS, ZeroShotArguments
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.recipes.options import parse_options
from modeling_ulip2.utils.places import find_folder, named_or_own


def main(argv: list[str] | None = None, prog: str | None = None) -> Evaluation[ZeroShotResult] | dict[str, Any]:
    args, hub = parse_options((ZeroShotArguments, HubArguments), argv, DESCRIPTIONS["zero_shot"], prog)
    args.model = named_or_own(args.model)
    return classify_benchmark(args, hub) if args.benchmark else classify_triplets(args, hub)


def classify_benchmark(args: ZeroShotArguments, hub: HubArguments) -> dict[str, Any]:
    """A converted benchmark, by protocol; the content of `zero_shot.json`."""
    folder = find_folder(args.dataset, "dataset", **hub.of_dataset)
    held = read_benchmark_manifest(folder)["benchmark"]
    if held != args.benchmark:
        raise ValueError(f"{args.dataset} holds {held}, not {args.benchmark}")
    run = BenchmarkRun.of(
        str(args.model), folder, args.dataset_config, args.split, args.protocol, args.tower, **hub.of_model
    )
    record = evaluate_benchmark(
        run,
        args.output_dir,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        cache_dir=args.class_cache,
        seed=args.seed,
    )
    if distributed_state().is_main_process:
        print((Path(args.output_dir) / REPORT).read_text(encoding="utf-8").partition("![")[0])
    return record


def classify_triplets(args: ZeroShotArguments, hub: HubArguments) -> Evaluation[ZeroShotResult]:
    """The labeled shapes of a triplets dataset."""
    if not args.labels_file:
        raise ValueError("triplets need --labels_file; a converted benchmark needs --benchmark")
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)

    templates = load_templates(args.templates)
    triplets = read_triplets(args.dataset, **hub.of_dataset)
    labels = read_labels(args.labels_file, triplets["id"])
    if args.split_file:
        triplets = select_ids(triplets, read_split(args.split_file)[args.split], args.split)
    names = load_class_names(args.class_names) if args.class_names else class_names_of(labels, triplets["id"])
    triplets = select_ids(triplets, [name for name in triplets["id"] if labels.get(name) in names], "labeled")
    targets = torch.tensor([names.index(labels[name]) for name in triplets["id"]])

    model, feature_extractor, tower = load_for_evaluation(str(args.model), args.tower, **hub.of_model)
    point_embeds = embed_points(model, feature_extractor, triplets, args.batch_size)  # (N, D)
    class_embeds = class_embeddings(tower.encode_text, names, templates)  # (C, D)
    evaluation = evaluate_zero_shot(point_embeds, class_embeds, targets, names, seed=args.seed)

    print(f"{len(triplets)} shapes of {args.dataset}, {len(names)} classes, tower {tower.name}\n")
    print("\n".join(figure_table(evaluation)))
    record = {"arguments": vars(args) | hub.decisive, "tower": tower.fingerprint, **evaluation.to_dict()}
    (output_dir / "zero_shot.json").write_text(
        json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    confusion_matrix(output_dir / "confusion.png", evaluation.result, class_embeds)
    return evaluation
