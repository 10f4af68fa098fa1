"""Accuracy against what happens to clouds outside a dataset: fewer points, noise, occlusion, rotation, lost color,
and views from few sides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from modeling_ulip2 import Ulip2FeatureExtractor, Ulip2ForPointCloudClassification
from modeling_ulip2.data.labels import class_names_of, read_labels
from modeling_ulip2.data.reading import decode_row, read_split, read_triplets, select_ids
from modeling_ulip2.embedding.encoding import encode_points
from modeling_ulip2.evaluation import class_embeddings, load_templates
from modeling_ulip2.evaluation.embeddings import load_for_evaluation
from modeling_ulip2.evaluation.reports.figures import CurvePanel, robustness_curves
from modeling_ulip2.evaluation.robustness.corruptions import CORRUPTIONS
from modeling_ulip2.evaluation.robustness.curves import (
    CURVES,
    PARTIAL_VIEWS,
    VIEWS_AXIS,
    VIEWS_TITLE,
    Classify,
    Measured,
    clouds_of,
    extractor_of,
    levels_of,
    measure,
    summarize,
)
from modeling_ulip2.recipes.evaluation_options import DESCRIPTIONS, RobustnessArguments
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.recipes.options import parse_options
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.markdown import markdown_table
from modeling_ulip2.utils.places import find_folder, find_model, named_or_own

ZERO_SHOT = "zero-shot"


def main(argv: list[str] | None = None, prog: str | None = None) -> dict[str, list[Measured]]:
    """Measures all levels; returns them by model."""
    args, hub = parse_options((RobustnessArguments, HubArguments), argv, DESCRIPTIONS["robustness"], prog)
    args.model = named_or_own(args.model)
    args.curves = args.curves or list(CURVES)
    unknown = sorted(set(args.curves) - set(CURVES))
    if unknown:
        raise ValueError(f"unknown curves {', '.join(unknown)}: known are {', '.join(CURVES)}")
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)

    triplets = read_triplets(args.dataset, **hub.of_dataset)
    labels = read_labels(args.labels_file, triplets["id"])
    trained = None
    if args.split_file:
        split = read_split(args.split_file)
        trained = {labels[name] for name in split["train"] if name in labels}
        triplets = select_ids(triplets, split["test"], "test")
    known = [name for name in triplets["id"] if labels.get(name) in (trained or labels.values())]
    triplets = select_ids(triplets, known[: args.limit], "labeled")
    names = class_names_of(labels, triplets["id"])
    targets = torch.tensor([names.index(labels[name]) for name in triplets["id"]])

    classify, extractor = load_models(args, names, hub)
    args.meshes = [str(find_folder(name, "dataset", **hub.of_others)) for name in args.meshes]
    columns = [name for name in ("id", "xyz", "rgb") if name in triplets.column_names]
    table = triplets.select_columns(columns).with_format("arrow")
    rows = [decode_cloud(table[index]) for index in range(len(table))]
    stored = min(len(row["xyz"]) for row in rows)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    file = output_dir / "robustness.json"
    settings = {name: value for name, value in asdict(args).items() if name not in ("curves", "batch_size")}
    settings |= hub.decisive
    settings |= {"shapes": len(rows), "classes": len(names), "stored_points": stored}
    measured = read_measured(file, settings)
    for curve in args.curves:
        for level in levels_of(curve, stored, bool(args.meshes), "rgb" in columns):
            missing = {name: own for name, own in classify.items() if (curve, level) not in keys(measured[name])}
            if not missing:
                continue
            results = measure(
                missing,
                extractor_of(curve, level, extractor),
                clouds_of(curve, level, rows, stored, args.meshes, args.seed),
                targets,
                names,
                args.batch_size,
                device,
                f"{curve} {level:g}",
            )
            for name, result in results.items():
                measured[name].append(summarize(curve, level, result, args.seed))
            write_text(file, json.dumps(settings | {"models": to_json(measured)}, indent=2) + "\n")
    lines = table_lines(measured, args.curves, settings)
    write_text(output_dir / "robustness.md", "\n".join(lines) + "\n")
    panels = [panel_of(curve, measured) for curve in args.curves if any(m.curve == curve for m in measured[ZERO_SHOT])]
    robustness_curves(output_dir / "robustness.png", panels, chance=1 / len(names))
    print("\n".join(lines))
    return measured


def load_models(
    args: RobustnessArguments, names: list[str], hub: HubArguments
) -> tuple[dict[str, Classify], Ulip2FeatureExtractor]:
    """Functions from `point_values` to scores of the classes `names`, by the name of the model."""
    model: Any
    model, extractor, tower = load_for_evaluation(str(args.model), args.tower, **hub.of_model)
    class_embeds = class_embeddings(tower.encode_text, names, load_templates(args.templates)).to(
        model.device
    )  # (C, D)
    functions: dict[str, Classify] = {
        ZERO_SHOT: lambda values: encode_points(model, values, "embeds") @ class_embeds.T  # (B, classes)
    }
    for folder in args.classifiers:
        place = find_model(folder, **hub.of_others)
        classifier = Ulip2ForPointCloudClassification.from_pretrained(place, **hub.of_others).to(model.device).eval()
        own = Ulip2FeatureExtractor.from_pretrained(place, **hub.of_others)
        if own.to_dict() != extractor.to_dict():
            raise ValueError(f"{folder} reads its clouds otherwise than {args.model}: measure it in a run of its own")
        places: dict[str, int] = {label: place for place, label in classifier.config.id2label.items()}
        unknown = sorted(set(names) - set(places))
        if unknown:
            raise ValueError(f"{folder} does not know the classes {', '.join(unknown)}")
        functions[Path(folder).name] = _scores(classifier, [places[name] for name in names])
    return functions, extractor


def _scores(classifier: Ulip2ForPointCloudClassification, columns: list[int]) -> Classify:
    return lambda values: classifier(values).logits[:, columns]


def decode_cloud(table: Any) -> Mapping[str, Any]:
    """A row, with its id as text."""
    row = decode_row(table)
    return row | {"id": str(row["id"])}


def keys(measured: Sequence[Measured]) -> set[tuple[str, float]]:
    return {(one.curve, one.level) for one in measured}


def read_measured(file: Path, settings: dict[str, Any]) -> dict[str, list[Measured]]:
    """What an earlier run measured, by model; empty lists where nothing was.

    Raises:
        ValueError: it ran with other settings.
    """
    found: dict[str, list[Measured]] = {
        name: [] for name in (ZERO_SHOT, *(Path(folder).name for folder in settings["classifiers"]))
    }
    if not file.exists():
        return found
    before = json.loads(file.read_text(encoding="utf-8"))
    changed = sorted(name for name in settings if before.get(name) != settings[name])
    if changed:
        raise ValueError(f"{file} holds a run with other {', '.join(changed)}: choose another --output_dir")
    for name, levels in before["models"].items():
        found[name] = [Measured(**{**level, "interval": tuple(level["interval"])}) for level in levels]
    return found


def to_json(measured: Mapping[str, Sequence[Measured]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [asdict(one) for one in levels] for name, levels in measured.items()}


def titles(curve: str) -> tuple[str, str, bool]:
    """Title, axis, and whether levels are shares."""
    if curve == PARTIAL_VIEWS:
        return VIEWS_TITLE, VIEWS_AXIS, False
    return CORRUPTIONS[curve].title, CORRUPTIONS[curve].axis, CORRUPTIONS[curve].percent


def level_text(curve: str, level: float) -> str:
    if titles(curve)[2]:
        return f"{level:.0%}".replace("%", " %")
    return f"{level / 1000:g}k" if level >= 10_000 else f"{level:g}"


def panel_of(curve: str, measured: Mapping[str, Sequence[Measured]]) -> CurvePanel:
    title, axis, _ = titles(curve)
    lines = {}
    for name, levels in measured.items():
        own = [one for one in levels if one.curve == curve]
        lines[name] = [(one.accuracy, *one.interval) for one in own]
    ticks = [level_text(curve, one.level) for one in measured[ZERO_SHOT] if one.curve == curve]
    return CurvePanel(title, axis, ticks, lines)


def table_lines(
    measured: Mapping[str, Sequence[Measured]], curves: Sequence[str], settings: Mapping[str, Any]
) -> list[str]:
    """A Markdown table for each curve: top-1 per cent, with 95 % intervals."""
    lines = [
        f"{settings['shapes']} shapes, {settings['classes']} classes, chance {100 / settings['classes']:.1f} %. Top-1 "
        "accuracy, per cent; in brackets bootstrap intervals of 95 %.",
    ]
    for curve in curves:
        title, axis, _ = titles(curve)
        levels = [one.level for one in measured[ZERO_SHOT] if one.curve == curve]
        if not levels:
            continue
        rows = []
        for name, own in measured.items():
            cells = [
                f"{100 * one.accuracy:.1f} ({100 * one.interval[0]:.0f} – {100 * one.interval[1]:.0f})"
                for one in own
                if one.curve == curve
            ]
            rows.append([name, *cells])
        header = [axis, *(level_text(curve, level) for level in levels)]
        lines += ["", f"{title}:", "", *markdown_table(header, rows)[:-1]]
    return lines
