"""What a model knows of the objects in annotated scans, by the field's protocols."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from torch import Tensor
from torch.nn import functional as F

from modeling_ulip2.data.reading import load_config
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.evaluation.reports.sheets import Panel, panel_sheet
from modeling_ulip2.geometry.cameras import Camera
from modeling_ulip2.recipes.evaluation_options import DESCRIPTIONS, ScenesArguments
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.recipes.options import log_to_terminal, parse_options
from modeling_ulip2.recipes.scene_objects import SceneEyes, SeenScene
from modeling_ulip2.scenes import ObjectMasks, Scene
from modeling_ulip2.scenes.dataset import SceneRows, read_scenes
from modeling_ulip2.scenes.evaluation import (
    InstanceEvaluation,
    RecallEvaluation,
    RecognitionEvaluation,
    SceneOverlaps,
    point_labels,
)
from modeling_ulip2.scenes.evaluation.arms import Arm, SceneTruth, surest
from modeling_ulip2.scenes.pictures import draw_points
from modeling_ulip2.scenes.proposals import GeometricSegmenter
from modeling_ulip2.scenes.vocabulary import other_than
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.markdown import markdown_table
from modeling_ulip2.utils.places import named_or_own

# Categories that are not objects; those of points count in the semantic figures, the last in none.
STRUCTURE, NAMELESS = ("wall", "floor", "ceiling"), ("other", "")
POINTS, TOWER, SHUFFLED, CHANCE = "the model", "image tower on rendered points", "shuffled embeddings", "chance"
# Of a picture of a scene, pixels.
PICTURE_SIDE = 720
TUNING, REPORTED = "tuning", "reported"

logger = logging.getLogger(__name__)


@dataclass
class Vocabulary:
    """The vocabulary and its embeddings.

    Attributes:
        names: C classes of objects.
        structure: S parts of rooms that the dataset names.
        embeds: (C, D).
        others: (O, D) of the words that compete with them.
        scale: what cosines are multiplied by.
    """

    names: list[str]
    structure: list[str]
    embeds: Tensor
    others: Tensor
    scale: float

    def logits(self, embeds: Tensor, with_others: bool) -> Tensor:
        """Scores (P, C) or (P, C + O) of embeddings (P, D)."""
        known = torch.cat([self.embeds, self.others]) if with_others else self.embeds
        return self.scale * F.normalize(embeds, dim=-1) @ known.T


@dataclass
class MeasuredScenes:
    """The scenes of a config that are tuned on, or those that are reported, and all that is measured on them."""

    arms: dict[str, Arm]
    recall: RecallEvaluation
    nameless: InstanceEvaluation
    recognition: RecognitionEvaluation
    scenes: int = 0
    objects: int = 0

    @classmethod
    def of(cls, words: Vocabulary, args: ScenesArguments) -> MeasuredScenes:
        def arm(change: str | None = None) -> Arm:
            return Arm(words.names, words.structure, args.min_region_size, change, args.seed)

        arms = {POINTS: arm(), SHUFFLED: arm("shuffled"), CHANCE: arm("chance")}
        if args.tower_views:
            arms[TOWER] = arm()
        return cls(
            arms,
            RecallEvaluation((*STRUCTURE, *NAMELESS), args.min_region_size),
            InstanceEvaluation(["object"], args.min_region_size),
            RecognitionEvaluation(words.names, words.embeds),
        )


@dataclass
class Named:
    """Given objects of a scene with their true and predicted classes, (M,) each."""

    masks: ObjectMasks
    labels: np.ndarray
    predicted: np.ndarray

    def __len__(self) -> int:
        return len(self.masks)


def main(argv: list[str] | None = None, prog: str | None = None) -> dict[str, Any]:
    """Measures all scenes; the content of `scenes.json`."""
    args, hub = parse_options((ScenesArguments, HubArguments), argv, DESCRIPTIONS["scenes"], prog)
    log_to_terminal(in_full=True)
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    scenes = {config: read_scenes(args.dataset, config, **hub.of_dataset) for config in args.configs}
    embedder = Ulip2Embedder.from_pretrained(
        named_or_own(args.model), tower=args.tower, batch_size=args.batch_size, **hub.of_model
    )
    categories = [name for config in scenes for name in categories_of(args.dataset, config, **hub.of_dataset)]
    words = vocabulary(embedder, categories, args)
    segmenter = GeometricSegmenter(seed=args.seed) if args.proposals else None
    eyes = SceneEyes(embedder, segmenter, args.tower_views, output_dir / "seen")
    record: dict[str, Any] = {
        "arguments": vars(args) | hub.decisive,
        "classes": words.names,
        "tower": embedder.tower.fingerprint,
    }
    record["configs"], lines = {}, [header(words, embedder, args)]
    for config, own in scenes.items():
        parts, rows, pictures = measure(own, eyes, words, args)
        record["configs"][config] = {name: result_of(part) for name, part in parts.items()} | {"scenes": rows}
        lines += table_lines(config, parts, rows)
        if pictures:
            panel_sheet(output_dir / f"{config}.png", pictures, legend_of(words))
        write_text(output_dir / "scenes.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        write_text(output_dir / "scenes.md", "\n".join(lines) + "\n")
    print("\n".join(lines))
    return record


def categories_of(dataset: str, config: str, **hub: Any) -> set[str]:
    """What the objects of all scenes are called."""
    rows = load_config(dataset, config, **hub).select_columns(["categories"])
    return {name for own in rows["categories"] for name in own}


def vocabulary(embedder: Ulip2Embedder, categories: Sequence[str], args: ScenesArguments) -> Vocabulary:
    """The words of all scenes, in the order of the alphabet."""
    present = set(categories)
    names = sorted(present.difference(STRUCTURE, NAMELESS))
    if not names:
        raise ValueError(f"{args.dataset} names no object but walls, floors and ceilings: there is nothing to measure")
    return Vocabulary(
        names,
        [name for name in STRUCTURE if name in present],
        embedder.embed_labels(names, args.templates),
        embedder.embed_labels(other_than(names), args.templates),
        float(embedder.model.logit_scale.detach().exp()),
    )


def measure(
    scenes: SceneRows, eyes: SceneEyes, words: Vocabulary, args: ScenesArguments
) -> tuple[dict[str, MeasuredScenes], list[dict[str, Any]], list[list[Panel]]]:
    """All scenes of a config: what was measured, time and memory of each scene, and pictures of some."""
    parts = {name: MeasuredScenes.of(words, args) for name in (TUNING, REPORTED)}
    rows: list[dict[str, Any]] = []
    pictures: list[list[Panel]] = []
    for place, name in enumerate(sorted(scenes.ids)[: args.limit]):
        scene = scenes.named(name)
        part = parts[TUNING if place < args.num_tuning else REPORTED]
        seen = eyes.look(scene, words.names, args.min_region_size)
        named = measure_scene(scene, seen, words, part)
        rows.append(
            {"id": scene.id, "points": len(scene.xyz), "objects": len(named), "proposals": len(seen.proposals)}
            | {"seconds": seen.seconds, "peak_memory": seen.peak_memory}
        )
        logger.info(
            "%s: %d objects, %d proposals, %.0f s", name, len(named), len(seen.proposals), sum(seen.seconds.values())
        )
        if part is parts[REPORTED] and len(pictures) < args.pictures:
            pictures.append(draw_names(scene, named, words))
    parts = {name: part for name, part in parts.items() if part.scenes}
    for name, part in parts.items():
        if not part.objects:
            raise ValueError(f"no named object of the {name} scenes has {args.min_region_size} points")
    return parts, rows, pictures


def measure_scene(scene: Scene, seen: SeenScene, words: Vocabulary, part: MeasuredScenes) -> Named:
    """Adds a scene to a part of the figures; its given objects by name."""
    places = {name: place for place, name in enumerate([*words.names, *words.structure])}
    semantic = np.array([places.get(name, -1) for name in scene.categories], dtype=np.int64)  # (K,)
    labels = np.where(semantic < len(words.names), semantic, -1)
    given_labels, proposals = labels[seen.given.ids], seen.proposals
    kinds = proposals.kinds or [""] * len(proposals)
    truth = SceneTruth(
        labels,
        SceneOverlaps.of(scene, seen.given),
        given_labels,
        proposals,
        SceneOverlaps.of(scene, proposals),
        np.append(semantic, -1)[scene.instance],  # -1, no object, is the last
        np.array([places.get(kind, -1) for kind in kinds], dtype=np.int64),
    )
    given, proposed = words.logits(seen.given_embeds, False), words.logits(seen.proposal_embeds, True)
    for name, arm in part.arms.items():
        if name != TOWER:
            arm.add(truth, given, proposed if len(proposals) else None)
    if seen.tower_embeds is not None:
        part.arms[TOWER].add(truth, words.logits(seen.tower_embeds, False), None)
    part.recognition.add(seen.given_embeds, given_labels)
    if len(proposals):
        part.recall.add(scene, proposals)
        part.nameless.add(truth.found, np.minimum(labels, 0), np.array([-1 if kind else 0 for kind in kinds]))
    part.scenes, part.objects = part.scenes + 1, part.objects + len(seen.given)
    return Named(seen.given, given_labels, surest(given, len(words.names))[0])


def result_of(part: MeasuredScenes) -> dict[str, Any]:
    """The figures of a part as plain values."""
    own = part.arms[POINTS]
    figures = {figure.name: figure for figure in part.recognition.result().figures}
    record: dict[str, Any] = {
        "scenes": part.scenes,
        "objects": part.objects,
        "classes_with_objects": int((own.recognition().class_counts > 0).sum()),
        "intervals": {name: list(figure.interval) for name, figure in figures.items()},
        "arms": {name: arm.metrics() for name, arm in part.arms.items()},
        "recognition_per_class": own.recognition().per_class,
        "given_per_class": own.given[0].result().per_class,
    }
    if own.proposed[0].scenes:
        recall = part.recall.result()
        record |= {
            "proposed_per_class": own.proposed[0].result().per_class,
            "semantic_per_class": own.semantic[0].result().per_class,
            "recall": {**recall.metrics, "proposals": recall.proposals, "objects": len(recall.best)},
            "class_agnostic": part.nameless.result().metrics,
            "recall_by_size": recall.by_size,
            "recall_by_category": recall.by_category,
        }
    return record


COLUMNS = {
    "top1": "top-1",
    "top5": "top-5",
    "top1_class_average": "by class",
    "given_ap": "AP",
    "given_ap50": "AP50",
    "given_ap25": "AP25",
    "proposed_ap": "prop. AP",
    "proposed_ap50": "prop. AP50",
    "proposed_ap25": "prop. AP25",
    "miou": "mIoU",
}


def header(words: Vocabulary, embedder: Ulip2Embedder, args: ScenesArguments) -> str:
    return (
        f"{args.dataset}: {len(words.names)} classes of objects, model {embedder.name}, tower {embedder.tower_name}. "
        "Per cent. Recognition of given objects (top-1, top-5, top-1 by class); average precision by ScanNet's rules, "
        "with given masks, then with proposals; semantic IoU of named proposals. In brackets 95 % bootstrap intervals."
    )


def table_lines(config: str, parts: dict[str, MeasuredScenes], scenes: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown of a config: the figures of its parts, and time and memory of each scene."""
    lines = []
    for name, part in parts.items():
        result = result_of(part)
        columns = {key: title for key, title in COLUMNS.items() if key in result["arms"][POINTS]}
        rows = []
        for arm, metrics in result["arms"].items():
            cells = [f"{100 * metrics[key]:.1f}" if key in metrics else "" for key in columns]
            if arm == POINTS:
                low, high = result["intervals"]["top1"]
                cells[0] += f" ({100 * low:.0f} – {100 * high:.0f})"
            rows.append([arm, *cells])
        objects = f"{part.scenes} {name} scenes, {part.objects} objects of {result['classes_with_objects']} classes"
        lines += ["", f"**{config}**, {objects}:", "", *markdown_table(["", *columns.values()], rows)]
        if "recall" in result:
            found = {"all": result["recall"]} | {row["size"]: row for row in result["recall_by_size"]}
            sizes = [
                [size, str(row["objects"]), *(f"{100 * row[key]:.1f}" for key in ("recall25", "recall50"))]
                for size, row in found.items()
            ]
            lines += markdown_table(["proposals find", "objects", "at IoU 0.25", "at IoU 0.5"], sizes)
            ap, ap50, ap25 = (100 * result["class_agnostic"][key] for key in ("ap", "ap50", "ap25"))
            lines += [f"Proposals whatever they are called: AP {ap:.1f}, AP50 {ap50:.1f}, AP25 {ap25:.1f}.", ""]
    rows = [
        [row["id"], f"{row['points']:,}", str(row["objects"]), str(row["proposals"])]
        + [f"{row['seconds'][step]:.1f}" for step in ("proposing", "embedding", "tower")]
        + [f"{row['peak_memory'] / 2**30:.2f}"]
        for row in scenes
    ]
    titles = [
        "scene",
        "points",
        "objects",
        "proposals",
        "proposing, s",
        "embedding, s",
        "tower, s",
        "peak, GiB",
    ]
    return [*lines, *markdown_table(titles, rows)]


def draw_names(scene: Scene, named: Named, words: Vocabulary) -> list[Panel]:
    """The scene from above without ceilings, its objects in colors of their predicted names, and of the true ones."""
    hidden = [place for place, name in enumerate(scene.categories) if name in ("ceiling", "roof")]
    shown = ~np.isin(scene.instance, hidden)  # type: ignore[arg-type]
    gray = np.full(len(scene.xyz), 205, np.uint8) if scene.rgb is None else scene.rgb.mean(axis=1).astype(np.uint8)
    right = float((named.predicted == named.labels).mean()) if len(named) else float("nan")
    panels = []
    for title, labels in ((f"{scene.id}: {100 * right:.0f} % named right", named.predicted), ("truth", named.labels)):
        colors = np.repeat((150 + gray // 3)[:, None], 3, axis=1)
        found = point_labels(len(scene.xyz), named.masks, labels)
        colors[found >= 0] = (255 * palette(len(words.names)))[found[found >= 0]].astype(np.uint8)
        picture = draw_points(scene.xyz[shown], colors[shown], camera=Camera(20.0, 62.0), size=PICTURE_SIDE)
        panels.append(Panel(picture, title))
    return panels


def palette(count: int) -> np.ndarray:
    """(count, 3) colors in [0, 1] that differ: hues by the golden ratio, in three shades."""
    places = np.arange(count)
    hues, values = (places * 0.618034) % 1, np.array([0.95, 0.7, 0.5])[places % 3]
    return np.array([hsv_to_rgb((hue, 0.75, value)) for hue, value in zip(hues, values, strict=True)]).reshape(-1, 3)


def legend_of(words: Vocabulary) -> dict[str, Sequence[float]]:
    return dict(zip(words.names, palette(len(words.names)).tolist(), strict=True))
