"""The table of measured and published figures."""

from __future__ import annotations

import pytest

from modeling_ulip2.conversion.published import load_published
from modeling_ulip2.data.benchmarks import BENCHMARKS
from modeling_ulip2.evaluation.benchmarks.leaderboard import (
    latex_leaderboard,
    markdown_leaderboard,
    measured_rows,
    published_rows,
)


def record(model: str, benchmark: str, config: str, top1: float, **more) -> dict:
    return {
        "model": model,
        "benchmark": benchmark,
        "config": config,
        "top1": top1,
        "top5": 0.9,
        "partial": False,
        "protocol": {"name": "ulip2"},
    } | more


RECORDS = [
    record("runs/my_model", "modelnet40", "colored_10k", 0.5),
    record("runs/my_model", "modelnet40", "fps_8192", 0.25),
    record("runs/my_model", "scanobjectnn", "PB_T50_RS", 0.125, partial=True),
]


def test_published_figures_are_percentages_with_a_source():
    published = load_published()
    for entry in published["zero_shot"]:
        assert entry["source"] in published["sources"] and entry["top1_top5"].keys() <= BENCHMARKS.keys()
        assert all(0 < top1 < top5 < 100 for top1, top5 in entry["top1_top5"].values())
    for entry in published["fine_tuned"]:
        assert entry["source"] in published["sources"] and 50 < entry["overall"] < 100
        assert entry["config"] in BENCHMARKS[entry["benchmark"]].configs
    flagship = next(e for e in published["zero_shot"] if e["pretraining"] == "Objaverse + ShapeNet")
    assert flagship["top1_top5"] == {"modelnet40": [84.7, 97.1], "objaverse_lvis": [50.6, 79.1]}


def test_markdown():
    text = markdown_leaderboard([*published_rows(), *measured_rows(RECORDS)], ["Objaverse-LVIS was not measured"])
    lines = text.splitlines()
    assert "| model | pre-trained on | ModelNet40 | Objaverse-LVIS | ScanObjectNN | source |" in lines
    assert "| ULIP-2, Point-BERT | Objaverse + ShapeNet | 84.7 / 97.1 | 50.6 / 79.1 |  | [2] |" in lines
    assert "2. github.com/salesforce/ULIP, README" in lines
    first, second = (line for line in lines if "my\\_model" in line or "my_model" in line)
    assert "50.0 / 90.0" in first and "12.5 / 90.0 (partial)" in first
    assert "25.0 / 90.0" in second and "12.5" not in second
    assert "5. measured on ModelNet40 colored_10k, ScanObjectNN PB_T50_RS; protocol ulip2" in lines
    assert lines[-1] == "- Objaverse-LVIS was not measured"
    assert {line.count("|") for line in lines if line.startswith("|")} == {7}


def test_models_of_the_same_name_are_told_apart():
    rows = measured_rows([record("a/model", "modelnet40", "off", 0.5), record("b/model", "modelnet40", "off", 0.25)])
    assert [row.model for row in rows] == ["a/model", "b/model"]


def test_latex():
    text = latex_leaderboard([*published_rows(), *measured_rows(RECORDS)])
    lines = text.splitlines()
    assert "\\textbf{my\\_model} &  & 50.0 / 90.0 &  & 12.5 / 90.0 (partial) & [5] \\\\" in lines
    body = [line for line in lines if line.endswith("\\\\")]
    assert len(body) == 1 + len(published_rows()) + 2
    assert {line.count("&") for line in body} == {5}
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")
    assert lines.count("\\midrule") == 2  # under the head, and before what was measured


@pytest.mark.parametrize("text", [markdown_leaderboard([]), latex_leaderboard([])])
def test_without_rows(text: str):
    assert "Zero-shot classification" in text
