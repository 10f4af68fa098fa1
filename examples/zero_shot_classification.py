"""Zero-shot classification: every shape gets the class whose prompts lie nearest.

    python examples/zero_shot_classification.py --model outputs/model --benchmark modelnet40 \\
        --dataset data/modelnet40 --dataset_config colored_10k --output_dir outputs/modelnet40
    python examples/zero_shot_classification.py --model outputs/model --dataset outputs/triplets \\
        --labels_file examples/data/object_labels.csv --split_file outputs/splits.json --output_dir outputs/zero_shot

With `--benchmark` the clouds of a converted benchmark (`dataset_scripts/modelnet40.py`, `objaverse_lvis.py`,
`scanobjectnn.py`) are measured by a published protocol; `torchrun --nproc_per_node N` shares them among processes, and
a stopped run goes on where it was. Without it, those of a triplets dataset with the categories of `--labels_file`.

Prints each accuracy beside its chance level and its shuffled control, and writes `zero_shot.json` and `confusion.png`,
for a benchmark also `report.md`.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser

from modeling_ulip2.data.benchmarks import BENCHMARKS, read_manifest
from modeling_ulip2.data.labels import class_names_of, read_labels
from modeling_ulip2.data.reading import read_split, read_triplets, select_ids
from modeling_ulip2.evaluation import class_embeddings, evaluate_zero_shot, load_class_names, load_templates
from modeling_ulip2.evaluation.benchmarks.protocols import PROTOCOLS
from modeling_ulip2.evaluation.benchmarks.run import REPORT, BenchmarkRun, distributed_state, evaluate_benchmark
from modeling_ulip2.evaluation.embeddings import embed_points, load_for_evaluation
from modeling_ulip2.evaluation.metrics.controls import Evaluation
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult
from modeling_ulip2.evaluation.reports.figures import confusion_matrix
from modeling_ulip2.evaluation.reports.report import figure_table
from modeling_ulip2.utils.scripts import run_main


@dataclass
class Arguments:
    model: str = field(metadata={"help": "Folder or hub name of a Ulip2Model."})
    dataset: str = field(metadata={"help": "Folder of a converted benchmark, or folder or hub name of triplets."})
    output_dir: str = field(metadata={"help": "Where zero_shot.json and confusion.png go."})
    benchmark: str | None = field(
        default=None, metadata={"help": "What the dataset is; default: triplets.", "choices": sorted(BENCHMARKS)}
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Config of the benchmark, e.g. PB_T50_RS; default: the only one."}
    )
    protocol: str | None = field(
        default=None,
        metadata={"help": "Of the benchmark; default: of the model's own project.", "choices": sorted(PROTOCOLS)},
    )
    labels_file: str | None = field(
        default=None, metadata={"help": "CSV with the columns path (the id of a triplet) and category."}
    )
    split_file: str | None = field(
        default=None, metadata={"help": 'JSON {"train": [ids], "test": [ids]}; default: all.'}
    )
    split: str = field(default="test", metadata={"help": "Which ids of split_file.", "choices": ["train", "test"]})
    templates: str = field(default="modelnet40_64", metadata={"help": "Prompts of a class: modelnet40_64."})
    class_names: str | None = field(
        default=None,
        metadata={
            "help": "Classes to choose from: modelnet40, scanobjectnn, shapenet55, objaverse_lvis; "
            "default: the categories of the evaluated shapes."
        },
    )
    num_workers: int | None = field(
        default=None, metadata={"help": "Processes that prepare a benchmark's clouds; default: the cores to spare."}
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Class embeddings of benchmarks, to be shared by runs; default: output_dir."}
    )
    tower: str | None = field(default=None, metadata={"help": "Image-text model, where the model's own has moved."})
    batch_size: int = field(default=16, metadata={"help": "Clouds a forward pass."})
    seed: int = field(default=0, metadata={"help": "Of the shuffled control and the bootstrap."})


def main(argv: list[str] | None = None) -> Evaluation[ZeroShotResult] | dict[str, Any]:
    parser = HfArgumentParser(Arguments, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    (args,) = parser.parse_args_into_dataclasses(argv)
    if args.benchmark:
        return classify_benchmark(args)
    if not args.labels_file:
        raise ValueError("triplets need --labels_file; a converted benchmark needs --benchmark")
    return classify_triplets(args)


def classify_benchmark(args: Arguments) -> dict[str, Any]:
    """A converted benchmark, by protocol; the content of `zero_shot.json`."""
    held = read_manifest(args.dataset)["benchmark"]
    if held != args.benchmark:
        raise ValueError(f"{args.dataset} holds {held}, not {args.benchmark}")
    run = BenchmarkRun.of(args.model, args.dataset, args.dataset_config, args.split, args.protocol, args.tower)
    record = evaluate_benchmark(
        run,
        args.output_dir,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        cache_dir=args.cache_dir,
        seed=args.seed,
    )
    if distributed_state().is_main_process:
        print((Path(args.output_dir) / REPORT).read_text(encoding="utf-8").partition("![")[0])
    return record


def classify_triplets(args: Arguments) -> Evaluation[ZeroShotResult]:
    """The labeled shapes of a triplets dataset."""
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)

    templates = load_templates(args.templates)
    triplets = read_triplets(args.dataset)
    labels = read_labels(args.labels_file, triplets["id"])
    if args.split_file:
        triplets = select_ids(triplets, read_split(args.split_file)[args.split], args.split)
    names = load_class_names(args.class_names) if args.class_names else class_names_of(labels, triplets["id"])
    triplets = select_ids(triplets, [name for name in triplets["id"] if labels.get(name) in names], "labeled")
    targets = torch.tensor([names.index(labels[name]) for name in triplets["id"]])

    model, feature_extractor, tower = load_for_evaluation(args.model, args.tower)
    point_embeds = embed_points(model, feature_extractor, triplets, args.batch_size)  # (N, D)
    class_embeds = class_embeddings(tower.encode_text, names, templates)  # (C, D)
    evaluation = evaluate_zero_shot(point_embeds, class_embeds, targets, names, seed=args.seed)

    print(f"{len(triplets)} shapes of {args.dataset}, {len(names)} classes, tower {tower.name}\n")
    print("\n".join(figure_table(evaluation)))
    record = {"arguments": vars(args), "tower": tower.fingerprint, **evaluation.to_dict()}
    (output_dir / "zero_shot.json").write_text(
        json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    confusion_matrix(output_dir / "confusion.png", evaluation.result, class_embeds)
    return evaluation


if __name__ == "__main__":
    run_main(main)
