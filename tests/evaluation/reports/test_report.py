from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from modeling_ulip2.evaluation import evaluate_retrieval, evaluate_zero_shot
from modeling_ulip2.evaluation.metrics.controls import Figure
from modeling_ulip2.evaluation.reports.report import (
    ReportPicture,
    Section,
    environment,
    format_duration,
    format_lift,
    readable,
    write_report,
)


def sections(folder: Path) -> list[Section]:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(7, 16, generator=generator)
    labels = torch.randint(0, 6, (60,), generator=generator)
    points = classes[labels] + torch.randn(60, 16, generator=generator)
    names = [f"class {label}" for label in range(6)] + ["never|seen"]
    zero_shot = evaluate_zero_shot(points, classes, labels, names)
    right = [(labels == label).nonzero().flatten().tolist() for label in range(7)]
    text = evaluate_retrieval(classes, points, right, "gallery")
    picture = ReportPicture(folder / "pictures" / "some thing.png", "Something")
    first = Section("Random split", "A paragraph.", {"test shapes": 60}, {"point encoder": zero_shot})
    return [first, Section("Other split", retrieval={"text to shape": text}, pictures=[picture])]


def numbers(value: Any) -> set[str]:
    """Every number in `value` as the report would print it."""
    if isinstance(value, dict):
        return set().union(*(numbers(item) for item in value.values())) if value else set()
    if isinstance(value, list):
        return set().union(*(numbers(item) for item in value)) if value else set()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return {f"{100 * value:.1f} %", f"{value:.1f}".removesuffix(".0"), str(value)}
    return set()


def test_every_figure_of_the_report_is_in_metrics_json(tmp_path: Path):
    metrics_path, report_path = write_report(
        tmp_path,
        "Quickstart",
        sections(tmp_path),
        summary="What it is.",
        durations={"triplets": 61.4, "training": 200.0},
        settings={"learning rate": 0.003, "towers": ["conse"]},
        pictures=[ReportPicture(tmp_path / "loss.png", "Losses")],
        notes=["Labels are 3-5 % wrong."],
    )
    metrics, report = json.loads(metrics_path.read_text()), report_path.read_text()
    assert set(metrics["sections"]) == {"Random split", "Other split"}
    known = numbers(metrics)
    tables = [line for line in report.split("## How to read")[0].splitlines() if line.startswith("| ")]
    shares = re.findall(r"\d+\.\d %", "\n".join(tables))
    assert len(shares) > 60
    assert [share for share in shares if share not in known] == []

    assert "![Something](pictures/some%20thing.png)" in report and "![Losses](loss.png)" in report
    assert "7 classes to choose from, 6 with shapes" in report
    assert "1 min 01 s" in report and "4 min 21 s" in report
    assert "Labels are 3-5 % wrong." in report
    assert metrics["durations_s"] == {"triplets": 61.4, "training": 200.0}
    assert metrics["environment"]["cores"] >= 1
    for line in tables:  # a cell with a bar must not break its row
        header = next(row for row in reversed(tables[: tables.index(line) + 1]) if "---" not in row)
        assert len(re.findall(r"(?<!\\)\|", line)) == len(re.findall(r"(?<!\\)\|", header))


def test_the_first_table_has_each_split_once(tmp_path: Path):
    _, report_path = write_report(tmp_path, "Title", sections(tmp_path))
    head = report_path.read_text().split("## ")[0].splitlines()
    rows = [line for line in head if line.startswith("| ") and "---" not in line][1:]
    assert len(rows) == 2
    assert "zero-shot top-1, point encoder" in rows[0] and "R@5, text to shape" in rows[1]


def test_a_failed_report_leaves_the_old_one(tmp_path: Path):
    write_report(tmp_path, "Old", [])
    with pytest.raises(ValueError):
        write_report(tmp_path, "New", [], durations={"training": float("nan")})
    assert "Old" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["title"] == "Old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "report.md"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("top1", "top-1"),
        ("top5_class_average", "top-5, class average"),
        ("recall_at_10", "R@10"),
        ("median_rank", "median rank"),
    ],
)
def test_readable(name: str, expected: str):
    assert readable(name) == expected


def test_lift_of_a_rank_is_how_much_nearer_the_top():
    assert format_lift(Figure("top1", 0.5, 0.02, 0.02, 0.0, (0.4, 0.6))) == "25.0"
    assert format_lift(Figure("median_rank", 4.0, 80.0, 80.0, 1.0, (3.0, 5.0))) == "20.0"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(3.21, "3.2 s"), (59.97, "1 min 00 s"), (754, "12 min 34 s"), (7260, "2 h 01 min")]
)
def test_duration(seconds: float, expected: str):
    assert format_duration(seconds) == expected


def test_environment_names_what_matters():
    assert {"processor", "cores", "python", "torch", "transformers"} <= set(environment())
