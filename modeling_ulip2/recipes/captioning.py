"""Captions of shapes that a model was not trained on, measured beside three controls."""

from __future__ import annotations

import json
import logging
import random
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from modeling_ulip2 import Ulip2CaptioningProcessor, Ulip2ForConditionalGeneration
from modeling_ulip2.data.captions import read_captioned_shapes, read_texts
from modeling_ulip2.data.images import portrait
from modeling_ulip2.data.reading import read_split, select_ids
from modeling_ulip2.evaluation.captions.caption_report import (
    caption_table,
    cider_interval,
    group_table,
    score_systems,
)
from modeling_ulip2.evaluation.captions.generation import (
    PUBLISHED_GENERATION,
    generate_captions,
    nearest_captions,
    shuffled_captions,
    text_only_caption,
)
from modeling_ulip2.evaluation.captions.scores import CaptionScores, read_predictions
from modeling_ulip2.evaluation.captions.verdict import (
    CaptionerVerdict,
    judge_captioner,
    verdict_banner,
    verdict_lines,
    write_verdict,
)
from modeling_ulip2.evaluation.embeddings import embed_points, embed_views, load_for_evaluation
from modeling_ulip2.evaluation.reports.sheets import Described, description_sheet
from modeling_ulip2.models.captioning_card import PROMPT
from modeling_ulip2.recipes.evaluation_options import DESCRIPTIONS, CaptionMeasureArguments
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.recipes.options import parse_options
from modeling_ulip2.towers import Tower
from modeling_ulip2.training.features import published_features
from modeling_ulip2.training.point_features import point_features
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.places import find_model

logger = logging.getLogger(__name__)

RUN_FILE = "captioning.json"
# Exit status where a captioner was measured and is not worth showing.
UNFIT = 1
SHUFFLED, NEAREST, TEXT_ONLY = "shuffled points", "nearest training caption", "no points"


def main(argv: list[str] | None = None, prog: str | None = None) -> dict[str, Any]:
    """Makes and measures captions; returns what `metrics.json` holds."""
    args, hub = parse_options((CaptionMeasureArguments, HubArguments), argv, DESCRIPTIONS["captioning"], prog)
    args.prompt = args.prompt or PROMPT
    for name, published in PUBLISHED_GENERATION.items():
        setattr(args, name, published if getattr(args, name) is None else getattr(args, name))
    if (args.model is None) == (args.predictions is None):
        raise ValueError("name either --model or --predictions")
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    claim(output_dir, args, hub)
    shapes, train = choose_shapes(args, hub)
    references = captions_of(args, hub, shapes)
    shapes = select_ids(shapes, references, "described")
    ids = list(shapes["id"])

    systems: dict[str, dict[str, str]] = {}
    point_model = args.point_model
    if args.predictions is not None:
        given = read_predictions(args.predictions)
        systems["given captions"] = {name: given[name] for name in ids if name in given}
        if missing := [name for name in ids if name not in given]:
            raise ValueError(f"{args.predictions} lacks {len(missing)} of {len(ids)} shapes, e.g. {missing[0]!r}")
    else:
        place = find_model(args.model, **hub.of_model)
        model = Ulip2ForConditionalGeneration.from_pretrained(place, **hub.of_model)
        model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        processor = Ulip2CaptioningProcessor.from_pretrained(place, **hub.of_model)
        point_model = point_model or model.config.point_model_name_or_path
        features = point_features(model, processor.feature_extractor, shapes, Path(args.feature_cache))
        names = ("num_beams", "min_new_tokens", "max_new_tokens", "length_penalty")
        generation = {name: getattr(args, name) for name in names}
        made = generate_captions(
            model,
            processor,
            ids,
            features,
            args.prompt,
            output_dir / "predictions.jsonl",
            args.batch_size,
            **generation,
        )
        systems |= {"model": made, SHUFFLED: shuffled_captions(made, args.seed)}
        systems[TEXT_ONLY] = dict.fromkeys(ids, text_only_caption(model, processor, args.prompt, **generation))
    return measure(args, output_dir, shapes, train, references, systems, point_model, hub)


def captions_of(args: CaptionMeasureArguments, hub: HubArguments, shapes: Dataset) -> dict[str, list[str]]:
    """The captions of shapes by id, best first."""
    texts = read_texts(args.texts, shapes, **hub.of_others)
    return {text["id"]: text["captions"] for text in texts if "captions" in text}


def claim(output_dir: Path, args: CaptionMeasureArguments, hub: HubArguments) -> None:
    """Notes what the captions depend on; raises ValueError where the folder holds those of another run."""
    names = "model dataset texts split_file split limit prompt num_beams min_new_tokens max_new_tokens length_penalty"
    settings = {name: getattr(args, name) for name in [*names.split(), "predictions", "seed"]} | hub.decisive
    path = output_dir / RUN_FILE
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else settings
    if changed := sorted(name for name in settings if settings[name] != before.get(name)):
        differences = ", ".join(f"{name} {before.get(name)} -> {settings[name]}" for name in changed)
        raise ValueError(f"{output_dir} holds captions of another run ({differences}): choose another --output_dir")
    write_text(path, json.dumps(settings, indent=2) + "\n")


def choose_shapes(args: CaptionMeasureArguments, hub: HubArguments) -> tuple[Dataset, Dataset | None]:
    """The shapes to caption, and those of the training, if a split is known."""
    shapes, train = read_captioned_shapes(args.dataset, **hub.of_dataset), None
    if args.split_file is not None:
        split = read_split(args.split_file)
        shapes, train = (
            select_ids(shapes, split[args.split], args.split),
            select_ids(shapes, split["train"], "training"),
        )
    if args.limit is not None and args.limit < len(shapes):
        shapes = shapes.select(sorted(random.Random(args.seed).sample(range(len(shapes)), args.limit)))
    return shapes, train


def measure(
    args: CaptionMeasureArguments,
    output_dir: Path,
    shapes: Dataset,
    train: Dataset | None,
    references: dict[str, list[str]],
    systems: dict[str, dict[str, str]],
    point_model: str | None,
    hub: HubArguments,
) -> dict[str, Any]:
    """Adds the control by retrieval, scores all captions, and writes figures, report and picture."""
    ids = list(shapes["id"])
    tower: Tower | None = None
    point_embeds: dict[str, Tensor] = {}
    nearest: dict[str, str] = {}
    if point_model is not None:
        encoder, feature_extractor, tower = load_for_evaluation(point_model, args.tower, **hub.of_others)
        point_embeds = dict(zip(ids, embed_points(encoder, feature_extractor, shapes), strict=True))
        if train is not None and args.split != "train":
            known = {name: captions[0] for name, captions in captions_of(args, hub, train).items()}
            train = select_ids(train, known, "described")
            embeds = dict(zip(train["id"], embed_points(encoder, feature_extractor, train), strict=True))
            systems[NEAREST], nearest = nearest_captions(point_embeds, embeds, known)
    has_views = args.views and tower is not None and "views" in shapes.column_names
    view_embeds = None
    if has_views and tower is not None:
        views = embed_views(tower, shapes, published_features(args.dataset, tower, **hub.of_dataset))
        view_embeds = dict(zip(ids, views, strict=True))
    scores = score_systems(
        systems, references, tower.encode_text if tower else None, point_embeds or None, view_embeds, args.tokenizer
    )
    write_captions(output_dir / "controls.jsonl", ids, references, systems, scores, nearest)
    verdict = tell_verdict(args, output_dir, references, systems, scores)
    sources = list(shapes["source"]) if "source" in shapes.column_names else [""] * len(ids)
    groups = {name: [i for i, own in zip(ids, sources, strict=True) if own == name] for name in sorted(set(sources))}
    record = {
        "arguments": asdict(args) | hub.decisive,
        "shapes": len(ids),
        "tower": tower and tower.fingerprint,
        "systems": {name: own.to_dict() | {"cider_interval": cider_interval(own)} for name, own in scores.items()},
        "by_source": {
            name: {group: own.subset(members) for group, members in groups.items()} for name, own in scores.items()
        },
        "captioner_verdict": verdict and verdict.to_dict(),
    }
    write_text(output_dir / "metrics.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    report = report_lines(scores, groups if len(groups) > 1 else {}, len(ids), args.seed, verdict)
    if "views" in shapes.column_names:
        draw(output_dir / "captions.png", shapes, references, systems, args)
        report += ["![Shapes drawn at random](captions.png)", ""]
    write_text(output_dir / "report.md", "\n".join(report))
    print("\n".join(report), flush=True)
    if verdict is not None and not verdict.fit:
        print(verdict_banner(verdict), file=sys.stderr)
    return record


def tell_verdict(
    args: CaptionMeasureArguments,
    output_dir: Path,
    references: dict[str, list[str]],
    systems: dict[str, dict[str, str]],
    scores: dict[str, CaptionScores],
) -> CaptionerVerdict | None:
    """Whether the captioner is worth showing, written beside its report and beside the model; None without a model."""
    if args.model is None:
        return None
    verdict = judge_captioner(systems["model"], references, scores["model"], scores[SHUFFLED], args.model, args.seed)
    write_verdict(verdict, output_dir)
    if Path(args.model).is_dir() and args.split != "train":  # what was learned by heart says little
        try:
            write_verdict(verdict, args.model)
        except OSError as error:
            logger.warning(f"the verdict cannot be written into {args.model}: {error}")
    return verdict


def report_lines(
    scores: dict[str, CaptionScores],
    groups: dict[str, list[str]],
    shapes: int,
    seed: int,
    verdict: CaptionerVerdict | None,
) -> list[str]:
    """`report.md`."""
    any_scores = next(iter(scores.values()))
    lines = ["# Captions of held-out shapes", "", f"{shapes} shapes. All figures times 100.", ""]
    lines += [] if verdict is None else verdict_lines(verdict)
    lines += [*caption_table(scores, seed), *group_table(scores, groups)] if groups else caption_table(scores, seed)
    lines += [
        f"- Words by the tokenizer `{any_scores.tokenizer}`; in brackets: bootstrap intervals of 95 % over shapes.",
        "- *sentence similarity*: cosine with the nearest reference by the tower's text side; *caption to points*, "
        "*caption to views*: cosine of the caption with the shape's point embedding and with its views' embeddings.",
        *(f"- {name} is missing: {reason}." for name, reason in any_scores.left_out.items()),
    ]
    if blank := {name: len(own.blank) for name, own in scores.items() if own.blank}:
        lines.append(f"- Captions without a word, which score 0: {blank}.")
    return [*lines, ""]


def write_captions(
    path: Path,
    ids: list[str],
    references: dict[str, list[str]],
    systems: dict[str, dict[str, str]],
    scores: dict[str, CaptionScores],
    nearest: dict[str, str],
) -> None:
    """Every shape's references with the captions of all systems and their CIDEr, a line each."""
    lines = []
    for row, name in enumerate(ids):
        own: dict[str, Any] = {"id": name, "references": references[name], "nearest_id": nearest.get(name)}
        for system, captions in systems.items():
            own[system] = {"caption": captions[name], "cider": round(scores[system].per_caption["cider"][row], 4)}
        lines.append(json.dumps(own, ensure_ascii=False))
    write_text(path, "\n".join(lines) + "\n")


def draw(
    path: Path,
    shapes: Dataset,
    references: dict[str, list[str]],
    systems: dict[str, dict[str, str]],
    args: CaptionMeasureArguments,
) -> None:
    """The picture: shapes drawn by the seed, each with the first system's caption and its reference."""
    count = min(args.sheet_shapes, len(shapes))
    if not count:
        return
    drawn = sorted(random.Random(args.seed).sample(range(len(shapes)), count))
    captions = next(iter(systems.values()))
    tiles = []
    for row in drawn:
        shape = shapes[row]
        tiles.append(Described(portrait(shape), captions[shape["id"]], references[shape["id"]][0]))
    description_sheet(path, tiles, f"{count} of {len(shapes)} held-out shapes, drawn at random")


def command(argv: list[str] | None = None, prog: str | None = None) -> int:
    """`main`; returns the exit status."""
    verdict = main(argv, prog)["captioner_verdict"]
    return 0 if verdict is None or verdict["fit"] else UNFIT
