"""The ablations of ULIP-2 on your own triplets: captions, views, top-k, encoders and losses, each over several seeds.

    python examples/ablations.py --dataset TRIPLETS --tower TOWER --split_file SPLIT --output_dir outputs/ablations
    python examples/ablations.py --only captions top_k --seeds 0 1 2 … --config examples/configs/quickstart.yaml

Every run is one of `ulip2 pretrain`, in a folder of its own; options that this script does not know go to all of them.
A stopped one goes on where it was, and a finished one is not run again. What several ablations have in common, such as
a variant that is what the shared options say anyway, is trained once. `ablations.md` has a table and a plot for each
ablation: mean and standard deviation over the seeds on the "test" ids of the split. Where the outcome decides
anything, these must be ids of a validation split.

The ablation `captions` needs triplets built with `--caption-sources`; it compares their captioners with one another.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import argparse
import json
from pathlib import Path

import numpy as np

from modeling_ulip2.data.shards import MANIFEST
from modeling_ulip2.recipes import pretraining
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.markdown import markdown_table
from modeling_ulip2.utils.scripts import run_main

# Columns of the tables: what `ulip2 pretrain` measures, and what it is called here.
METRICS = {
    "eval_zero_shot_top1": "zero-shot top-1, %",
    "eval_zero_shot_top5": "zero-shot top-5, %",
    "eval_text_to_shape_recall_at_10": "text to shape R@10, %",
    "eval_image_to_shape_recall_at_10": "image to shape R@10, %",
}
# The Point-BERT ladder keeps the ratio of width to depth of the published encoder; PointNeXt-S is the published one.
LADDER = {"1/2": (96, 2), "3/4": (144, 3), "1": (192, 4), "5/4": (240, 5)}
ENCODER_OPTIONS = (
    "hidden_size num_hidden_layers num_attention_heads num_groups group_size encoder_dims drop_path_rate"
).split()
ABLATIONS: dict[str, dict[str, list[str]]] = {
    "views": {str(count): ["--num_views", str(count)] for count in (1, 2, 6, 12)},
    "top_k": {str(count): ["--top_k", str(count)] for count in (1, 3, 5)},
    "encoder": {
        **{
            f"Point-BERT {name}": ["--hidden_size", str(width), "--num_hidden_layers", str(depth)]
            for name, (width, depth) in LADDER.items()
        },
        "PointNeXt-S": ["--point_encoder", "ulip2_pointnext"],
    },
    "losses": {
        "image alone": ["--text_loss_weight", "0"],
        "text alone": ["--image_loss_weight", "0"],
        "both": [],
    },
}


def parse_arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", required=True, help="triplets: a folder or a hub name")
    add("--output_dir", type=Path, required=True, help="folder of the runs, the tables and the plots")
    add("--only", nargs="+", choices=["captions", *ABLATIONS], help="these ablations [all that the dataset allows]")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the trainings [0 1 2]")
    add("--config", type=Path, help="YAML file with the options of `ulip2 pretrain` that all runs share")
    return parser.parse_known_args(argv)


def captioners(dataset: str) -> list[str]:
    """The captioners that a dataset tells apart; none where it was built without `--caption-sources`."""
    path = Path(dataset) / MANIFEST
    settings = json.loads(path.read_text(encoding="utf-8")).get("settings", {}) if path.is_file() else {}
    return list(settings["captioners"]) if settings.get("caption_sources") else []


def run(folder: Path, words: list[str], variant: list[str], seed: int) -> dict[str, float]:
    """The metrics of one training below `folder`, run now unless it was before."""
    folder = folder / run_name(words, variant) / f"seed_{seed}"
    results = folder / "eval_results.json"
    if not results.is_file():
        options = [*words, *variant, "--seed", str(seed), "--output_dir", str(folder)]
        if "--point_encoder" in variant:  # the sizes of the shared options are those of Point-BERT
            options = without(options, ENCODER_OPTIONS)
        pretraining.main(options)
    return json.loads(results.read_text(encoding="utf-8"))


def run_name(words: list[str], variant: list[str]) -> str:
    """What a variant changes of the shared options, as the name of a folder; "shared" where it changes nothing."""
    shared, own = option_values(words), option_values(variant)
    changes = {name: values for name, values in own.items() if shared.get(name) != values}
    return "-".join(f"{name}_{'_'.join(values)}" for name, values in sorted(changes.items())) or "shared"


def option_values(words: list[str]) -> dict[str, list[str]]:
    """Options of a command line with their values; of one that comes twice, the last."""
    values: dict[str, list[str]] = {}
    own: list[str] = []
    for word in words:
        if word.startswith("--"):
            name, _, value = word.removeprefix("--").partition("=")
            own = values[name] = [value] if value else []
        else:
            own.append(word)
    return values


def without(words: list[str], names: list[str]) -> list[str]:
    """Options without those called `names`, and without their values."""
    kept, skipping = [], False
    for word in words:
        if word.startswith("--"):
            skipping = word.removeprefix("--").partition("=")[0] in names
        if not skipping:
            kept.append(word)
    return kept


def shared_options(config: Path | None, rest: list[str]) -> list[str]:
    """Options of a YAML file as words, before those of the command line, which win."""
    import yaml

    words: list[str] = []
    for name, value in (yaml.safe_load(config.read_text(encoding="utf-8")) if config else {}).items():
        words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])] if value is not None else []
    return [*words, *rest]


def table(measured: dict[str, list[dict[str, float]]]) -> list[str]:
    """A row for every variant: mean and standard deviation over its seeds."""
    all_runs = [own for runs in measured.values() for own in runs]
    columns = {key: title for key, title in METRICS.items() if all(key in own for own in all_runs)}
    rows = []
    for name, runs in measured.items():
        cells = []
        for key in columns:
            values = 100 * np.array([own[key] for own in runs])
            cells.append(f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""))
        rows.append([name, str(len(runs)), *cells])
    return markdown_table(["variant", "seeds", *columns.values()], rows)


def plot(path: Path, title: str, measured: dict[str, list[dict[str, float]]]) -> Path:
    """Bars of the first metric that was measured, with the seeds as points."""
    from matplotlib.figure import Figure

    key = next(key for key in METRICS if all(key in own for runs in measured.values() for own in runs))
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for place, runs in enumerate(measured.values()):
        values = 100 * np.array([own[key] for own in runs])
        axes.bar(place, values.mean(), color="tab:blue", alpha=0.6)
        axes.scatter([place] * len(values), values, color="black", s=12, zorder=3)
    axes.set_xticks(range(len(measured)), list(measured))
    axes.set_ylabel(METRICS[key])
    axes.set_title(title)
    figure.savefig(path, dpi=120)
    return path


def main(argv: list[str] | None = None) -> Path:
    """Runs all ablations and returns the path of the report."""
    args, rest = parse_arguments(argv)
    known = captioners(args.dataset)
    ablations = {"captions": {name: ["--caption_sources", name] for name in known}} if len(known) > 1 else {}
    ablations |= ABLATIONS
    wanted = args.only or list(ablations)
    if "captions" in wanted and "captions" not in ablations:
        raise SystemExit(f"ablations: {args.dataset} does not tell captioners apart: build it with --caption-sources")
    words = ["--dataset", args.dataset, *shared_options(args.config, rest)]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    lines = ["# Ablations", "", f"Mean and standard deviation over the seeds {', '.join(map(str, args.seeds))}.", ""]
    for name in wanted:
        measured: dict[str, list[dict[str, float]]] = {}
        for variant, options in ablations[name].items():
            measured[variant] = [run(args.output_dir / "runs", words, options, seed) for seed in args.seeds]
            write_text(args.output_dir / f"{name}.json", json.dumps(measured, indent=2) + "\n")
        picture = plot(args.output_dir / f"{name}.png", name.replace("_", "-"), measured)
        heading = name.replace("_", "-").capitalize()
        lines += [f"## {heading}", "", *table(measured), "", f"![{name}]({picture.name})", ""]
        write_text(args.output_dir / "ablations.md", "\n".join(lines))
    return args.output_dir / "ablations.md"


if __name__ == "__main__":
    run_main(main)
