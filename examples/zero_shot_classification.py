"""Zero-shot classification of a triplets dataset: every shape gets the class whose prompts lie nearest.

    python examples/zero_shot_classification.py --model outputs/model --dataset outputs/triplets \
        --labels_file examples/data/object_labels.csv --split_file outputs/splits.json --output_dir outputs/zero_shot

Prints each accuracy beside its chance level and its shuffled control, and writes `zero_shot.json` and `confusion.png`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import HfArgumentParser

from modeling_ulip2.evaluation import class_embeddings, evaluate_zero_shot, load_class_names, load_templates
from modeling_ulip2.evaluation.controls import Evaluation
from modeling_ulip2.evaluation.embeddings import embed_points, load_for_evaluation
from modeling_ulip2.evaluation.figures import confusion_matrix
from modeling_ulip2.evaluation.report import figure_table
from modeling_ulip2.evaluation.split import class_names_of, read_labels
from modeling_ulip2.evaluation.zero_shot import ZeroShotResult
from modeling_ulip2.training.data import read_split, read_triplets, select_ids


@dataclass
class Arguments:
    model: str = field(metadata={"help": "Folder or hub name of a Ulip2Model."})
    dataset: str = field(metadata={"help": "Folder or hub name of a triplets dataset."})
    labels_file: str = field(metadata={"help": "CSV with the columns path (the id of a triplet) and category."})
    output_dir: str = field(metadata={"help": "Where zero_shot.json and confusion.png go."})
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
    tower: str | None = field(default=None, metadata={"help": "Image-text model, where the model's own has moved."})
    batch_size: int = field(default=16, metadata={"help": "Clouds a forward pass."})
    seed: int = field(default=0, metadata={"help": "Of the shuffled control and the bootstrap."})


def main(argv: list[str] | None = None) -> Evaluation[ZeroShotResult]:
    (args,) = HfArgumentParser(Arguments).parse_args_into_dataclasses(argv)
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)

    labels = read_labels(args.labels_file)
    templates = load_templates(args.templates)
    triplets = read_triplets(args.dataset)
    if args.split_file:
        triplets = select_ids(triplets, read_split(args.split_file)[args.split], args.split)
    names = load_class_names(args.class_names) if args.class_names else class_names_of(labels, triplets["id"])
    triplets = select_ids(triplets, [name for name in triplets["id"] if labels.get(name) in names], "labelled")
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
    main()
