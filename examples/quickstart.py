"""The whole of ULIP-2 on one folder of meshes: triplets, pre-training, evaluation on shapes that it never saw.

    python examples/quickstart.py                   # 820 pieces of furniture from Sweet Home 3D
    python examples/quickstart.py --meshes DIR      # your own GLB, OBJ, PLY, STL or OFF files

Every step is a command of this repository, printed before it runs, so that you can go on from any of them by hand. A
second run skips the steps that are done; a stopped one goes on where it was. Each collection has a folder of its own,
`outputs/quickstart` or `outputs/quickstart-NAME` with the name of the folder of meshes, unless `--output_dir` names
another; the results are in its `report.md` and `metrics.json`.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import hashlib
import json
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import yaml
from transformers import HfArgumentParser

from modeling_ulip2.utils.scripts import run_main
from modeling_ulip2.utils.steps import Step, Steps

ROOT = Path(__file__).resolve().parent.parent
LABELS = ROOT / "examples" / "data" / "object_labels.csv"
CAPTIONS = ROOT / "examples" / "data" / "captions_sweet_home_3d.jsonl"
CAPTIONS_MADE_BY = "a large multimodal model that saw two renderings of each object and neither its name nor its path"
NEAR_DUPLICATES = ROOT / "examples" / "data" / "near_duplicates.csv"
# For a collection without recorded captions: its map was fitted on other objects.
FITTED_TOWER = ROOT / "checkpoints" / "linear-lit-tower"
TRAINING = ROOT / "examples" / "configs" / "quickstart.yaml"
# The creator whose furniture the second experiment leaves out of the training.
HELD_OUT_CREATOR, HELD_OUT_SOURCE = "Scopia", "sh3d_scopia_ccby"
TEST_SHARE, MIN_SHAPES = 0.2, 10
TRAININGS_SIDE_BY_SIDE = 2
# White, so that dark furniture can be seen; the released renders are black.
BACKGROUND = (255, 255, 255)
# Captioners beside the recorded captions, and what the report calls their captions.
COMPARED = {"labels": "automatic names", "metadata": "metadata"}
# What a person might look for among furniture, and the category that answers.
FURNITURE_QUERIES: dict[str, str | None] = {
    "a wooden chair": "chair",
    "a comfortable sofa": "sofa",
    "a potted plant": "houseplant",
    "a double bed": "bed",
    "a lamp": "lamp",
    "a round table": "table",
    "a car": "car",
    "a person standing": "person",
}


@dataclass
class Arguments:
    output_dir: str | None = field(
        default=None,
        metadata={"help": "Everything is written here; default: outputs/quickstart, with the name of --meshes."},
    )
    meshes: str | None = field(default=None, metadata={"help": "Your folder of meshes; default: Sweet Home 3D's."})
    package: str | None = field(
        default=None, metadata={"help": "Debian package sweethome3d-furniture, if it was downloaded before."}
    )
    labels_file: str | None = field(
        default=None,
        metadata={"help": "CSV with the columns path and category of your meshes, to classify them."},
    )
    num_points: int = field(default=4096, metadata={"help": "Points per shape."})
    views: int = field(default=12, metadata={"help": "Views per shape."})
    num_proc: int | None = field(
        default=None, metadata={"help": "Processes that build triplets; default: as many as cores."}
    )
    limit: int | None = field(default=None, metadata={"help": "Only the first N meshes."})
    epochs: float | None = field(default=None, metadata={"help": "Passes over the shapes; default: the YAML file's."})
    compare_captions: bool = field(
        default=False,
        metadata={
            "help": "Also train on automatic names and on metadata instead of the recorded captions of Sweet Home 3D, "
            "with the plain ConSE pair: takes a third more time."
        },
    )
    seed: int = field(default=0, metadata={"help": "Seed of the split, the triplets and the training."})


@dataclass
class Experiment:
    """A division of the shapes, and the model that is trained and tested on it."""

    name: str
    title: str
    text: str
    split_file: Path
    model_dir: Path
    tower: Path
    # folder of the tower's embeddings, where they are not the dataset's
    features: Path | None = None
    caption_sources: tuple[str, ...] = ()


def main(argv: list[str] | None = None) -> Path:
    """Runs all steps and returns the path of the report."""
    (args,) = HfArgumentParser(Arguments, description=__doc__).parse_args_into_dataclasses(argv)
    output = Path(args.output_dir or default_output(args.meshes)).resolve()
    try:
        output.mkdir(parents=True, exist_ok=True)
        steps = Steps(output, ROOT)
    except OSError as error:
        sys.exit(f"{output} cannot be written ({error.strerror}): choose another --output_dir")
    # absolute, as the steps run in the folder of the repository
    labels_file = Path(args.labels_file).resolve() if args.labels_file else LABELS if args.meshes is None else None
    meshes = Path(args.meshes).resolve() if args.meshes else output / "meshes"
    check_collection(steps, output, meshes)
    if args.meshes is None:
        package = ["--package", Path(args.package).resolve()] if args.package else []
        steps.run("fetch the meshes", meshes, "dataset_scripts/sweet_home_3d.py", "--output", meshes, *package)
    captioners: list[str | Path] = []
    if args.meshes is not None:
        if args.compare_captions:
            sys.exit(
                "--compare_captions compares with the recorded captions of Sweet Home 3D: there are none of --meshes"
            )
        tower = FITTED_TOWER
    else:
        tower = output / "tower"
        steps.run("fetch the frozen image-text pair", tower, "-m", "modeling_ulip2.towers.conse", tower)
        captioners += ["--captioner", "recorded", *(COMPARED if args.compare_captions else ())]
        captioners += ["--captions", CAPTIONS.relative_to(ROOT), "--captions-made-by", CAPTIONS_MADE_BY, "--hidden"]
        captioners += ["--caption-sources"] if args.compare_captions else []
    dataset = output / ("dataset_three_captioners" if args.compare_captions else "dataset")
    scale = ["--limit", args.limit] if args.limit else []
    scale += ["--num-proc", args.num_proc] if args.num_proc is not None else []
    steps.run(
        "build the triplets",
        dataset,
        "dataset_scripts/build_triplets.py",
        *("--meshes", meshes, "--output", dataset, "--tower", tower),
        *("--num-points", args.num_points, "--views", args.views, "--seed", args.seed),
        *("--background", *BACKGROUND, *captioners, *scale),
        inputs=listing(meshes),
    )

    experiments = plan_experiments(output, dataset, tower, labels_file, args)
    for experiment in experiments:
        if experiment.features is not None:
            steps.run(
                f"fit the tower's linear map ({experiment.name})",
                experiment.features,
                *("-m", "modeling_ulip2.recipes.linear_lit", "--dataset", dataset, "--tower", tower),
                *("--split_file", experiment.split_file, "--near_duplicates", NEAR_DUPLICATES.relative_to(ROOT)),
                *("--output_dir", experiment.tower, "--seed", args.seed, *chosen_captions(experiment)),
                inputs=digest(experiment.split_file),
            )
    trainings = [training_step(experiment, dataset, labels_file, args) for experiment in experiments]
    # each keeps a core busy with what cannot be shared among cores; a GPU is shared less well
    together = 1 if torch.cuda.is_available() else TRAININGS_SIDE_BY_SIDE
    for first in range(0, len(trainings), together):
        steps.run_together(trainings[first : first + together])
    start = time.monotonic()
    report = evaluate(output, dataset, experiments, labels_file, args, steps, start)
    print(f"\nThe report is {report}; every figure of it is in {report.with_name('metrics.json').name} beside it.")
    return report


def training_step(experiment: Experiment, dataset: Path, labels_file: Path | None, args: Arguments) -> Step:
    """The pre-training of one experiment."""
    labels = ["--labels_file", labels_file] if labels_file else []
    epochs = ["--num_train_epochs", args.epochs] if args.epochs else []
    command = (
        "examples/pretrain.py",
        *("--config", TRAINING.relative_to(ROOT), "--dataset", dataset, "--tower", experiment.tower),
        *(["--features", experiment.features] if experiment.features else []),
        *chosen_captions(experiment),
        *("--split_file", experiment.split_file, "--output_dir", experiment.model_dir, "--seed", args.seed),
        *(*labels, *epochs, *smaller_batch(experiment), *precision()),
    )
    return Step(f"pre-train ({experiment.name})", experiment.model_dir / "config.json", command)


def default_output(meshes: str | None) -> str:
    """A folder for each collection, as the Makefile names it."""
    name = "" if meshes is None else "-" + re.sub(r"[^A-Za-z0-9._-]", "_", Path(meshes).resolve().name)
    return f"outputs/quickstart{name}"


def check_collection(steps: Steps, output: Path, meshes: Path) -> None:
    """Ends the run where the folder holds what was made of other meshes: nothing of it would fit these."""
    words = (steps.done.get("build the triplets") or {}).get("command") or []
    before = Path(words[words.index("--meshes") + 1]) if "--meshes" in words else meshes
    # the furniture lies within the output folder, which may have been moved
    if before != meshes and not (meshes == output / "meshes" and before.name == "meshes" and not before.exists()):
        sys.exit(
            f"{output} holds what was made of {before}, not of {meshes}: choose another --output_dir (OUT=folder with "
            "make)"
        )


def listing(folder: Path) -> str:
    """Digest of the files of a folder by name and size: tells whether meshes were added, removed or replaced."""
    files = sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in folder.rglob("*.*"))
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def digest(path: Path) -> str:
    """Tells whether a file is still the same."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def chosen_captions(experiment: Experiment) -> list[str]:
    """Options that choose among the captioners of the dataset."""
    return ["--caption_sources", *experiment.caption_sources] if experiment.caption_sources else []


def smaller_batch(experiment: Experiment) -> list[str | int]:
    """Options for a collection so small that the YAML file's batch would leave fewer than four steps per pass."""
    shapes = len(json.loads(experiment.split_file.read_text(encoding="utf-8"))["train"])
    batch = yaml.safe_load(TRAINING.read_text(encoding="utf-8"))["per_device_train_batch_size"]
    return ["--per_device_train_batch_size", max(2, shapes // 4)] if shapes < 4 * batch else []


def precision() -> list[str]:
    """Options for bfloat16 where the machine has instructions for it; elsewhere it would be emulated, slowly."""
    if torch.cuda.is_available():
        return ["--bf16", "true"] if torch.cuda.is_bf16_supported(including_emulation=False) else []
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.13 or later
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return ["--use_cpu", "true", *(["--bf16", "true"] if fast else [])]


def plan_experiments(
    output: Path, dataset: Path, tower: Path, labels_file: Path | None, args: Arguments
) -> list[Experiment]:
    """A random split; and, for Sweet Home 3D, training without one creator and testing on that creator alone.

    With `compare_captions`, models also learn from the captions of other captioners on the random split.
    """
    from modeling_ulip2.data.labels import read_labels
    from modeling_ulip2.data.near_duplicates import extend_to_groups, near_duplicate_groups
    from modeling_ulip2.data.reading import read_triplets
    from modeling_ulip2.data.splits import draw_test_ids

    triplets = read_triplets(str(dataset)).select_columns(["id", "source"])
    sources = dict(zip(triplets["id"], triplets["source"], strict=True))
    if len(sources) < MIN_SHAPES:
        sys.exit(f"{dataset} holds {len(sources)} usable shapes; to train and to test takes {MIN_SHAPES} or more.")
    labels = read_labels(labels_file, sources) if labels_file else {}
    groups = near_duplicate_groups(list(sources), NEAR_DUPLICATES if args.meshes is None else None)

    def fitted(name: str) -> dict[str, Any]:
        """The tower of an experiment; where captions were recorded, its map is fitted on the training shapes."""
        if args.meshes is not None:
            return {"tower": tower}
        own = output / name
        chosen = ("recorded",) if args.compare_captions else ()
        return {"tower": own, "features": own / "embeddings", "caption_sources": chosen}

    experiments = [
        Experiment(
            "held-out objects",
            "Held-out objects",
            f"One shape in {round(1 / TEST_SHARE)} was drawn by seed {args.seed} and kept out of the training; "
            "near-duplicates stay together.",
            output / "split_held_out.json",
            output / "model",
            **fitted("tower_held_out"),
        )
    ]
    test = {experiments[0].name: draw_test_ids(list(sources), labels, args.seed, groups, TEST_SHARE)}
    if args.meshes is None and 0 < sum(source == HELD_OUT_SOURCE for source in sources.values()) < len(sources):
        experiments.append(
            Experiment(
                "held-out creator",
                f"Held-out creator ({HELD_OUT_CREATOR})",
                f"Trained without {HELD_OUT_CREATOR}, tested on {HELD_OUT_CREATOR} alone, so that nothing can be "
                "recognized by its style or by a near copy.",
                output / "split_held_out_creator.json",
                output / "model_held_out_creator",
                **fitted("tower_held_out_creator"),
            )
        )
        test[experiments[-1].name] = {name for name, source in sources.items() if source == HELD_OUT_SOURCE}
    for source, what in COMPARED.items() if args.compare_captions else ():
        name = f"held-out objects, {what}"
        split_file, model_dir = output / "split_held_out.json", output / f"model_{source}"
        text = (
            f"Trained on {what} instead of recorded captions and on ConSE's image embeddings, without a learned map."
        )
        experiments.append(
            Experiment(name, name.capitalize(), text, split_file, model_dir, tower, caption_sources=(source,))
        )
        test[name] = test[experiments[0].name]
    for experiment in experiments:
        held_out = test[experiment.name]
        near = extend_to_groups(held_out, groups)
        split = {"train": [i for i in sources if i not in near], "test": [i for i in sources if i in held_out]}
        experiment.split_file.write_text(json.dumps(split, indent=1) + "\n", encoding="utf-8")
    return experiments


def evaluate(
    output: Path,
    dataset: Path,
    experiments: list[Experiment],
    labels_file: Path | None,
    args: Arguments,
    steps: Steps,
    start: float,
) -> Path:
    """Measures every experiment, draws the pictures and writes the report."""
    from modeling_ulip2.data.labels import read_labels
    from modeling_ulip2.data.reading import read_split, read_triplets, select_ids
    from modeling_ulip2.evaluation import load_templates
    from modeling_ulip2.evaluation.embeddings import embed_points, embed_views, load_for_evaluation
    from modeling_ulip2.evaluation.reports.figures import loss_curves
    from modeling_ulip2.evaluation.reports.report import ReportPicture, write_report
    from modeling_ulip2.evaluation.reports.split import evaluate_split
    from modeling_ulip2.towers.prompts import EncodeText, remembering
    from modeling_ulip2.training.features import published_features

    print("\n== evaluate", flush=True)
    templates = load_templates("modelnet40_64")
    triplets = read_triplets(str(dataset))
    labels = read_labels(labels_file) if labels_file else {}
    counts = Counter(labels[name] for name in triplets["id"] if name in labels)
    # a category of one shape cannot be in training and test
    class_names = sorted(name for name, count in counts.items() if count > 1)
    sections, pictures, parameters = [], [], 0
    encode_text: EncodeText | None = None
    for experiment in experiments:
        split = read_split(experiment.split_file)
        test = select_ids(triplets, split["test"], "test")
        model, feature_extractor, tower = load_for_evaluation(experiment.model_dir)
        if encode_text is None:  # the towers differ in their linear maps: one sentence encoder serves them all
            encode_text = remembering(tower.encode_text)
        parameters = sum(parameter.numel() for parameter in model.point_model.parameters())
        point_embeds = embed_points(model, feature_extractor, test)  # (N, D)
        seen = {labels[name] for name in split["train"] if name in labels}
        sections.append(
            evaluate_split(
                test,
                point_embeds,
                encode_text,
                output,
                experiment.title,
                templates=templates,
                labels={name: label for name, label in labels.items() if label in class_names},
                class_names=class_names or None,
                view_embeds=embed_views(tower, test, published_features(str(experiment.features or dataset), tower)),
                queries=FURNITURE_QUERIES if args.meshes is None else None,
                text=experiment.text,
                counts={
                    "training shapes": len(split["train"]),
                    "test shapes": len(test),
                    **({"categories seen in training": len(seen.intersection(class_names))} if labels else {}),
                },
                seed=args.seed,
            )
        )
        history = json.loads((experiment.model_dir / "trainer_state.json").read_text())["log_history"]
        path = loss_curves(output / f"loss_{experiment.model_dir.name}.png", history, experiment.title)
        pictures.append(ReportPicture(path, f"Training ({experiment.name})."))
    steps.record("evaluate", time.monotonic() - start)
    errors = dataset / "errors.parquet"
    unusable = pq.read_metadata(errors).num_rows
    _, report = write_report(
        output,
        "Quickstart: from meshes to language",
        sections,
        summary=f"{len(triplets)} shapes, each with {args.num_points} colored points, {args.views} views and ranked "
        f"captions, taught a Point-BERT of {parameters / 1e6:.1f} M parameters the space of a frozen image-text pair. "
        "Below is what it makes of shapes that it never saw.",
        durations=steps.durations,
        settings={
            "meshes": "your own" if args.meshes else "Sweet Home 3D (Debian package sweethome3d-furniture)",
            "seed": args.seed,
            "frozen image-text pair": "MiniLM-L6-v2 and an ImageNet classifier with a learned linear map, not CLIP",
            "captions": "automatic" if args.meshes else f"recorded, by {CAPTIONS_MADE_BY}",
            "training": TRAINING.relative_to(ROOT).as_posix(),
            "arithmetic of the training": "bfloat16 and float32" if "--bf16" in precision() else "float32",
            "meshes that could not be used": f"{unusable} (see {errors.relative_to(output)})" if unusable else "none",
        },
        pictures=pictures,
        notes=[
            "Categories were assigned one by one from names and pictures; eight objects of no clear kind have none.",
            "The captions that the model learned from were written from renderings alone; no name and no category was "
            "used in training. The test asks for unseen objects, not for unseen words: other chairs that the model "
            "learned from were called chairs.",
            "The linear map of the image-text pair was fitted on the training shapes alone, without near-duplicates "
            "of test shapes. What a training shape taught the point encoder comes from maps that had not seen it.",
        ]
        if args.meshes is None
        else [],
    )
    return report


if __name__ == "__main__":
    run_main(main)
