"""The figures of the card of `checkpoints/ulip2-small`: each test of its split, by names and by sentences.

    python examples/checkpoint_figures.py --model checkpoints/ulip2-small \\
        --dataset triplets/sweet_home_3d triplets/quaternius --output_dir outputs/checkpoint

Zero-shot: among the categories of the test's shapes, in all 64 prompts of ULIP. Text to shape: the short caption of
each shape looks for it among all of the test. Points are measured as stored and turned about the vertical axis, each
shape by an angle of its own. Every figure stands beside chance and shuffled embeddings, and beside what the frozen
image tower makes of all views. Prints a table, which also goes to `figures.md`, and writes all figures to
`figures.json`.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import concatenate_datasets
from torch import Tensor

from modeling_ulip2.data.augmentation import rotate_about_y
from modeling_ulip2.data.labels import class_names_of, read_labels
from modeling_ulip2.data.reading import CloudRows, read_split, read_triplets, select_ids
from modeling_ulip2.data.recorded_captions import read_recorded_captions
from modeling_ulip2.evaluation import class_embeddings, evaluate_retrieval, evaluate_zero_shot, load_templates
from modeling_ulip2.evaluation.embeddings import embed_points, embed_views, load_for_evaluation
from modeling_ulip2.evaluation.metrics.controls import Figure
from modeling_ulip2.recipes.options import parse_options
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.markdown import markdown_table
from modeling_ulip2.utils.scripts import run_main

DATA = Path(__file__).parent / "data"
# The figures of the table, of all that are measured.
SHOWN = ("top1", "top5", "recall_at_1", "recall_at_10")


@dataclass
class Arguments:
    model: str = field(metadata={"help": "Folder of the checkpoint; its split.json names the tests."})
    dataset: list[str] = field(metadata={"help": "Folders or hub names of triplets that hold the test shapes."})
    output_dir: str = field(metadata={"help": "Where figures.md and figures.json go."})
    captions: list[str] = field(
        default_factory=lambda: [str(path) for path in sorted(DATA.glob("captions_*.jsonl"))],
        metadata={"help": "Recorded captions with a column `short`."},
    )
    labels_file: str = field(
        default=str(DATA / "object_labels.csv"), metadata={"help": "CSV with the columns path and category."}
    )
    image_tower: bool = field(
        default=True, metadata={"help": "Measure the frozen image tower, too, which takes most of the time."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the turns, the shuffled control and the bootstrap."})


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures as a command line asks; the content of `figures.json`."""
    (args,) = parse_options((Arguments,), argv, __doc__)
    split_file = Path(args.model) / "split.json"
    held_out = read_split(split_file)["test"]
    tests: dict[str, list[str]] = json.loads(split_file.read_text(encoding="utf-8"))["tests"]
    tests.pop("names", None)  # of the new categories
    triplets = concatenate_datasets([read_triplets(name) for name in args.dataset])
    triplets = select_ids(triplets, held_out, "test")
    labels = read_labels(args.labels_file, triplets["id"])
    short = {
        name: own.all()[0]
        for path in args.captions
        for name, own in read_recorded_captions(path, ["short"]).by_id.items()
    }

    model, feature_extractor, tower = load_for_evaluation(args.model)
    clouds = CloudRows(triplets)
    embeds = {
        "points": embed_points(model, feature_extractor, triplets),  # (N, D)
        "points, turned": embed_points(model, feature_extractor, turned(clouds, args.seed)),  # (N, D)
    }
    if args.image_tower:
        views = embed_views(tower, triplets)
        embeds["image tower, all views"] = torch.stack([F.normalize(own.mean(dim=0), dim=0) for own in views])
    place = {name: row for row, name in enumerate(triplets["id"])}
    found: dict[str, Any] = {}
    rows = []
    for test, ids in tests.items():
        labeled = [name for name in ids if labels.get(name)]
        names = class_names_of(labels, labeled)
        targets = [names.index(labels[name]) for name in labeled]
        class_embeds = class_embeddings(tower.encode_text, names, load_templates("modelnet40_64"))  # (C, D)
        queries = tower.encode_text([short[name] for name in ids])  # (n, D)
        for of, all_embeds in embeds.items():

            def rows_of(wanted: list[str], all_embeds: Tensor = all_embeds) -> Tensor:
                return all_embeds[[place[name] for name in wanted]]

            named = evaluate_zero_shot(rows_of(labeled), class_embeds, targets, names, seed=args.seed)
            relevant = [[row] for row in range(len(ids))]
            asked = evaluate_retrieval(queries, rows_of(ids), relevant, "gallery", seed=args.seed)
            figures = {figure.name: figure for figure in [*named.figures, *asked.figures]}
            found.setdefault(test, {"shapes": len(ids), "labeled": len(labeled), "classes": len(names)})[of] = {
                name: vars(figure) for name, figure in figures.items()
            }
            rows.append([test, f"{len(ids)}, {len(names)} categories", of, *(shown(figures[name]) for name in SHOWN)])
    table = markdown_table(["test", "shapes", "of", "top-1", "top-5", "R@1", "R@10"], rows)
    print("\n".join(table))
    output = Path(args.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "figures.md", "\n".join(table) + "\n")
    text = json.dumps(found, indent=2)
    write_text(output / "figures.json", text + "\n")
    return json.loads(text)


def turned(clouds: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Clouds turned about the vertical axis, each by an angle of its own."""
    rng = np.random.default_rng(seed)
    return [{**row, "xyz": rotate_about_y(np.float32(row["xyz"]), rng)} for row in clouds]


def shown(figure: Figure) -> str:
    """A fraction with its interval, chance and shuffled control, in per cent."""
    low, high = figure.interval
    return f"{figure.value:.1%} [{low:.1%}, {high:.1%}], chance {figure.chance:.1%}, shuffled {figure.control:.1%}"


if __name__ == "__main__":
    run_main(main)
