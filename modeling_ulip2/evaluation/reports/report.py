"""`metrics.json` and `report.md`: every figure beside its chance level and its control, and what the run was."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from modeling_ulip2.evaluation.metrics.controls import Evaluation, Figure
from modeling_ulip2.evaluation.metrics.retrieval import RetrievalResult
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult
from modeling_ulip2.utils.cpus import available_cores
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.markdown import markdown_table

PACKAGES = ("modeling-ulip2", "torch", "transformers", "datasets", "accelerate", "numpy", "numba", "timm")
FIGURE_COLUMNS = ("value", "interval", "chance", "× chance", "shuffled control")


@dataclass(frozen=True)
class ReportPicture:
    """A picture of the report; `path` lies in or below the report's folder."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """One split or experiment.

    Attributes:
        title: heading, e.g. "Held-out objects (random split)".
        text: a paragraph: what was trained on what, and what it was tested on.
        counts: sizes, e.g. {"training shapes": 656, "test shapes": 164}.
        zero_shot: evaluations by who is classified, e.g. {"point encoder": ..., "image tower, 12 views": ...}.
        retrieval: evaluations by direction, e.g. {"text to shape": ...}.
        pictures: shown after the tables.
    """

    title: str
    text: str = ""
    counts: Mapping[str, int | str] = field(default_factory=dict)
    zero_shot: Mapping[str, Evaluation[ZeroShotResult]] = field(default_factory=dict)
    retrieval: Mapping[str, Evaluation[RetrievalResult]] = field(default_factory=dict)
    pictures: Sequence[ReportPicture] = ()


def write_report(
    output_dir: str | Path,
    title: str,
    sections: Iterable[Section],
    *,
    summary: str = "",
    durations: Mapping[str, float] | None = None,
    settings: Mapping[str, Any] | None = None,
    pictures: Sequence[ReportPicture] = (),
    notes: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Writes `metrics.json` and `report.md` into `output_dir`; each is written whole or not at all.

    Args:
        title: heading of the report.
        sections: the experiments, in the order of reading.
        summary: a paragraph under the title.
        durations: seconds of each step, in the order of the run.
        settings: plain values for "How it was made" (model size, seeds, towers, ...).
        pictures: pictures that belong to the whole run, e.g. loss curves.
        notes: sentences a reader needs to judge the figures (whose labels, which license, ...).

    Returns:
        The paths of `metrics.json` and `report.md`.
    """
    output_dir, sections = Path(output_dir), list(sections)
    output_dir.mkdir(parents=True, exist_ok=True)
    machine = environment()
    metrics = {
        "title": title,
        "sections": {section.title: _section_metrics(section) for section in sections},
        "durations_s": dict(durations or {}),
        "settings": dict(settings or {}),
        "environment": machine,
    }
    lines = [f"# {title}", ""]
    if summary:
        lines += [summary, ""]
    lines += _headline(sections)
    for section in sections:
        lines += _section_lines(section, output_dir)
    if pictures:
        lines += ["## Training", "", *_picture_lines(pictures, output_dir)]
    lines += ["## How to read the figures", ""]
    lines += [f"- {sentence}" for sentence in [*_legend(sections), *notes]] + [""]
    lines += [
        "## How it was made",
        "",
        *markdown_table(["setting", "value"], [[k, _plain(v)] for k, v in (settings or {}).items()]),
    ]
    if durations:
        rows = [[step, format_duration(seconds)] for step, seconds in durations.items()]
        total = format_duration(sum(durations.values()))
        lines += markdown_table(["step", "time"], [*rows, ["**all**", f"**{total}**"]])
    lines += markdown_table(["machine", ""], [[key, _plain(value)] for key, value in machine.items()])
    metrics_path, report_path = output_dir / "metrics.json", output_dir / "report.md"
    write_text(metrics_path, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")
    write_text(report_path, "\n".join(lines).rstrip() + "\n")
    return metrics_path, report_path


def environment() -> dict[str, Any]:
    """Cores, memory, accelerator and versions of this run."""
    import torch

    cores = available_cores()
    machine: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": cores,
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        machine["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    machine["accelerator"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    machine["python"] = platform.python_version()
    for package in PACKAGES:
        try:
            machine[package] = version(package)
        except PackageNotFoundError:
            continue
    return machine


def figure_table(evaluation: Evaluation[Any]) -> list[str]:
    """A markdown table of one evaluation: each figure with its interval, chance level and shuffled control."""
    constant = any(figure.constant is not None for figure in evaluation.figures)
    rows = []
    for figure in evaluation.figures:
        row = [readable(figure.name), *_figure_cells(figure)]
        if constant:
            row.append("" if figure.constant is None else format_share(figure.constant))
        rows.append(row)
    return markdown_table(["figure", *FIGURE_COLUMNS, *(["constant answer"] if constant else [])], rows)


def _figure_cells(figure: Figure) -> list[str]:
    """The cells under `FIGURE_COLUMNS`."""
    show = format_rank if figure.name == "median_rank" else format_share
    low, high = figure.interval
    control = f"{show(figure.control)} ± {show(figure.control_std)}"
    return [
        f"**{show(figure.value)}**",
        f"{show(low)} – {show(high)}",
        show(figure.chance),
        format_lift(figure),
        control,
    ]


def readable(name: str) -> str:
    """`top1_class_average` -> "top-1, class average", `recall_at_5` -> "R@5"."""
    if name.startswith("recall_at_"):
        return f"R@{name.removeprefix('recall_at_')}"
    if name.startswith("top"):
        k, _, kind = name.removeprefix("top").partition("_")
        return f"top-{k}" + (f", {kind.replace('_', ' ')}" if kind else "")
    return name.replace("_", " ")


def format_share(value: float) -> str:
    return f"{100 * value:.1f} %"


def format_rank(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def format_lift(figure: Figure) -> str:
    """How many times better than chance; for a rank, how many times nearer the top."""
    better, worse = (figure.chance, figure.value) if figure.name == "median_rank" else (figure.value, figure.chance)
    return f"{better / worse:.1f}" if worse else "–"


def format_duration(seconds: float) -> str:
    """63.2 -> "1 min 03 s"."""
    if seconds < 59.95:  # what would round to 60.0
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _section_metrics(section: Section) -> dict[str, Any]:
    return {
        "counts": dict(section.counts),
        "zero_shot": {name: evaluation.to_dict() for name, evaluation in section.zero_shot.items()},
        "retrieval": {name: evaluation.to_dict() for name, evaluation in section.retrieval.items()},
    }


def _headline(sections: Sequence[Section]) -> list[str]:
    """One table for the hurried reader: top-1 of every classification, R@5 (or the middle k) of every retrieval."""
    rows = []
    for section in sections:
        for who, zero_shot in section.zero_shot.items():
            rows.append([section.title, f"zero-shot top-1, {who}", *_figure_cells(zero_shot.figures[0])])
        for direction, retrieval in section.retrieval.items():
            middle = retrieval.figures[len(retrieval.result.recall_at) // 2]
            rows.append([section.title, f"{readable(middle.name)}, {direction}", *_figure_cells(middle)])
    return markdown_table(["", "figure", *FIGURE_COLUMNS], rows)


def _section_lines(section: Section, output_dir: Path) -> list[str]:
    lines = [f"## {section.title}", ""]
    if section.text:
        lines += [section.text, ""]
    if section.counts:
        lines += [" · ".join(f"{name}: {count}" for name, count in section.counts.items()), ""]
    for name, zero_shot in section.zero_shot.items():
        shapes, classes = len(zero_shot.result.labels), len(zero_shot.result.class_names)
        present = int((zero_shot.result.class_counts > 0).sum())
        lines += [f"### Zero-shot classification: {name}", ""]
        lines += [f"{shapes} shapes, {classes} classes to choose from, {present} with shapes.", ""]
        lines += figure_table(zero_shot)
    for name, retrieval in section.retrieval.items():
        queries, size = len(retrieval.result.ranks), retrieval.result.gallery_size
        right = retrieval.result.num_relevant.double().mean().item()
        lines += [f"### Retrieval: {name}", ""]
        lines += [f"{queries} queries, {size} candidates, {right:.1f} right answers per query.", ""]
        lines += figure_table(retrieval)
    lines += _picture_lines(section.pictures, output_dir)
    for name, zero_shot in section.zero_shot.items():
        lines += _per_class(name, zero_shot.result)
    return lines


def _per_class(name: str, result: ZeroShotResult) -> list[str]:
    return ["<details>", f"<summary>Every class: {name}</summary>", "", *class_table(result), "</details>", ""]


def class_table(result: ZeroShotResult) -> list[str]:
    """A markdown table of the classes that have shapes, the largest first."""
    header = ["class", "shapes", *(f"top-{k}" for k in result.topk), "most often mistaken for"]
    rows = []
    for row in sorted(result.per_class, key=lambda row: (-row["shapes"], row["class"])):
        shares = [format_share(row[f"top{k}"]) for k in result.topk]
        rows.append([row["class"], str(row["shapes"]), *shares, row["mistaken_for"] or ""])
    return markdown_table(header, rows)


def _legend(sections: Sequence[Section]) -> list[str]:
    legend = []
    evaluations: list[Evaluation[Any]] = []
    for section in sections:
        evaluations += [*section.zero_shot.values(), *section.retrieval.values()]
    if evaluations:
        settings = evaluations[0].settings
        legend += [
            "*chance*: the expected value when the candidates are ranked at random, computed exactly from the counts.",
            f"*shuffled control*: mean ± standard deviation over {settings['permutations']} permutations that give "
            "every shape another shape's embedding; what is left owes nothing to the shape.",
            f"*interval*: percentile bootstrap, {settings['bootstrap_resamples']} resamples of the test shapes "
            f"(queries), {settings['confidence']:.0%}; it does not cover the choice of the training seed.",
        ]
    if any(section.zero_shot for section in sections):
        legend += [
            "*constant answer*: the largest test classes, named for every shape.",
            "*class average*: mean over the classes that have test shapes; without it, the share of shapes.",
        ]
    if any(section.retrieval for section in sections):
        legend.append(
            "*median rank*: of the best right answer, 1 is first. Ties are pessimistic: a wrong item with the same "
            "score comes before a right one."
        )
    return legend


def _picture_lines(pictures: Sequence[ReportPicture], output_dir: Path) -> list[str]:
    lines = []
    for picture in pictures:
        path = os.path.relpath(picture.path, output_dir).replace(os.sep, "/")
        lines += [f"![{picture.caption}]({path.replace(' ', '%20')})", "", f"*{picture.caption}*", ""]
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
