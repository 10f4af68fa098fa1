"""`ulip2 scene`: the objects in a scan of rooms, named by any words, or looked for by a text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling_ulip2.utils.command_line import CommandParser, add_hub_arguments, hub_options
from modeling_ulip2.utils.places import named_or_own
from modeling_ulip2.utils.scripts import DONE

from .shared import (
    UP_AXIS_CHOICES,
    add_batch_size,
    add_command,
    add_device,
    add_model,
    add_tower,
    positive,
    tell,
    tell_failure,
    tell_warnings,
)

if TYPE_CHECKING:
    from modeling_ulip2.scenes import Scene, SceneUnderstanding
    from modeling_ulip2.scenes.naming import Describe

# Those of `modeling_ulip2.scenes.reading` and `modeling_ulip2.scenes.results`, not imported for `--help`.
UNITS = ("auto", "m", "cm", "mm", "in", "ft")
SUFFIXES = (".json", ".npz", ".ply", ".glb", ".png")


def register(commands: Any) -> str:
    return add_command(
        commands,
        "scene",
        run,
        "find and name the objects in a scan of rooms",
        _fill,
        "Find the objects in a scan of one or more rooms and name them by your words (--labels), or look for a text "
        "in it (--find). Objects are proposed by shape and color, without training, or given (--masks). Needs the "
        'extra scenes: pip install "modeling-ulip2[scenes]".',
    )


def _fill(parser: CommandParser) -> None:
    add = parser.group("scan").add_argument
    add("scan", metavar="SCAN", help="points or a mesh of rooms")
    add(
        "--up-axis",
        "--up_axis",
        choices=UP_AXIS_CHOICES,
        default="auto",
        help="what points up in the scan (default: auto, what the format fixes, else a guess that is told)",
    )
    add("--unit", choices=UNITS, default="auto", help="of its coordinates (default: auto, a guess that is told)")
    add("--masks", metavar="FILE", help="objects of another segmenter: Mask3D's text file, or .npz of boolean masks")
    add = parser.group("what to find").add_argument
    add("--labels", metavar="LABEL", nargs="+", help='names of objects, e.g. chair "floor lamp"')
    add("--find", metavar="TEXT", help='what to look for, e.g. "a red armchair"')
    add(
        "--other_words",
        metavar="WORD",
        nargs="*",
        help="what else there may be, so that it is not taken for a label (default: wall, floor, ceiling and so on)",
    )
    add("--template", metavar="PROMPT", nargs="+", help="with {} for the label (default: ULIP-2's 64)")
    add("--threshold", type=_share, default=0.0, help="least score of an object, 0 to 1 (default: %(default)s)")
    add("--top_k", type=positive, default=50, help="objects to list (default: %(default)s)")
    add_model(parser)
    add_tower(parser)
    parser.group("model").add_argument(
        "--captioner", metavar="NAME_OR_PATH", help="a captioning model, which says a sentence of each object"
    )
    parser.group("output").add_argument(
        "-o",
        "--output",
        metavar="FILE",
        nargs="+",
        default=[],
        help="files to write, by suffix: .ply or .glb, the scan colored by names or by how well the text fits; .png, "
        "a picture of it; .json, the objects with boxes and embeddings; .npz, their masks as well",
    )
    add_hub_arguments(parser, "model")
    add_batch_size(parser)
    add_device(parser)


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return value


def run(options: argparse.Namespace) -> int:
    if bool(options.labels) == bool(options.find):
        raise ValueError("give --labels to name objects, or --find to look for a text, one of the two")
    options.model = named_or_own(options.model)
    outputs = [Path(output) for output in options.output]
    for output in outputs:
        if output.suffix.lower() not in SUFFIXES:
            raise ValueError(f"--output {output} ends in none of {', '.join(SUFFIXES)}")

    from modeling_ulip2.data.candidate_labels import check_labels
    from modeling_ulip2.scenes.reading import read_scene

    if options.labels:
        check_labels(options.labels)
    scene = read_scene(options.scan, options.up_axis, options.unit)
    tell_warnings(options.scan, scene.warnings)
    understanding = _load(options, len(scene.xyz))
    if options.labels:  # what is wrong with tower and templates is told before the work begins
        understanding.embedder.embed_labels(options.labels, options.template)
    else:
        understanding.embedder.embed_texts(options.find)
    return _answer(options, scene, understanding, outputs)


def _load(options: argparse.Namespace, num_points: int) -> SceneUnderstanding:
    from modeling_ulip2 import Ulip2Embedder
    from modeling_ulip2.scenes import SceneUnderstanding
    from modeling_ulip2.scenes.proposals import GivenMasks

    segmenter = None
    if options.masks:
        from modeling_ulip2.scenes.sources.masks import read_masks

        segmenter = GivenMasks(read_masks(Path(options.masks), num_points))
    embedder = Ulip2Embedder.from_pretrained(
        options.model,
        tower=options.tower,
        device=options.device,
        batch_size=options.batch_size,
        **hub_options(options),
    )
    more: dict[str, Any] = {} if options.other_words is None else {"other_words": options.other_words}
    return SceneUnderstanding(embedder, segmenter, describe=_describe(options), **more)


def _describe(options: argparse.Namespace) -> Describe | None:
    if options.captioner is None:
        return None
    from modeling_ulip2.pipelines.point_cloud_to_text import load_captioner

    captioner = load_captioner(options.captioner, device=options.device)
    return lambda clouds: [answer[0]["generated_text"].strip() for answer in captioner(list(clouds))]


def _answer(options: argparse.Namespace, scene: Scene, understanding: SceneUnderstanding, outputs: list[Path]) -> int:
    from modeling_ulip2.scenes.results import name_colors, object_table, score_colors, write_results

    embedded = understanding.embed(scene)
    for failure in embedded.failures:
        tell_failure(failure)
    scores = None
    if options.labels:
        found = understanding(
            embedded, options.labels, templates=options.template, threshold=options.threshold, sentences=False
        )[: options.top_k]
        asked: dict[str, Any] = {"labels": options.labels}
        rgb = name_colors(scene, found, options.labels)
    else:
        matches = understanding.find(embedded, options.find)
        scores = matches.scores
        found = [thing for thing in matches.named()[: options.top_k] if thing.score >= options.threshold]
        asked = {"text": options.find}
        rgb = score_colors(scene, scores)
    if understanding.describe is not None:
        understanding.add_sentences(scene, found)
    if found:
        print("\n".join(object_table(found)))
    else:
        words = "the text" if options.find else "one of the labels"
        tell(f"{options.scan}: of {len(embedded.masks)} proposals none is {words}; the nearest are other words")
    for output in outputs:
        write_results(output, scene, found, rgb, scores, asked)
        print(f"wrote {output}")
    return DONE
