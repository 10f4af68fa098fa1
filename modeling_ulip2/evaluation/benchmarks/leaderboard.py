"""Measured figures in one table with the published ones, as Markdown and as LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling_ulip2.conversion.published import load_published
from modeling_ulip2.data.benchmarks import BENCHMARKS
from modeling_ulip2.utils.markdown import markdown_table


@dataclass(frozen=True)
class LeaderboardRow:
    """A line of the table.

    Attributes:
        model: its name.
        pretraining: on what.
        cells: by benchmark, "top-1 / top-5" in per cent.
        note: where the figures come from.
        measured: by this package, not published.
    """

    model: str
    pretraining: str
    cells: Mapping[str, str]
    note: str
    measured: bool


def published_rows() -> list[LeaderboardRow]:
    published = load_published()
    rows = []
    for entry in published["zero_shot"]:
        cells = {name: _cell(*figures) for name, figures in entry["top1_top5"].items()}
        rows.append(
            LeaderboardRow(entry["model"], entry["pretraining"], cells, published["sources"][entry["source"]], False)
        )
    return rows


def measured_rows(records: Sequence[Mapping[str, Any]]) -> list[LeaderboardRow]:
    """A row for each model, and more where it was measured on several configs of a benchmark.

    Args:
        records: contents of `zero_shot.json`.
    """
    by_model: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for record in records:
        by_model.setdefault(record["model"], {}).setdefault(record["benchmark"], []).append(record)
    names = [Path(model).name for model in by_model]
    rows = []
    for model, by_benchmark in by_model.items():
        name = Path(model).name if names.count(Path(model).name) == 1 else model
        for place in range(max(map(len, by_benchmark.values()))):
            of_row = [own[place] for own in by_benchmark.values() if place < len(own)]
            cells = {
                r["benchmark"]: _cell(100 * r["top1"], 100 * r["top5"]) + (" (partial)" if r["partial"] else "")
                for r in of_row
            }
            protocols = ", ".join(dict.fromkeys(record["protocol"]["name"] for record in of_row))
            measured = ", ".join(f"{BENCHMARKS[r['benchmark']].title} {r['config']}" for r in of_row)
            rows.append(LeaderboardRow(name, "", cells, f"measured on {measured}; protocol {protocols}", True))
    return rows


def markdown_leaderboard(rows: Sequence[LeaderboardRow], remarks: Sequence[str] = ()) -> str:
    """The table, its sources below, and `remarks`, e.g. which benchmarks are missing."""
    sources = _sources(rows)
    body = []
    for row in rows:
        model = f"**{row.model}**" if row.measured else row.model
        cells = [row.cells.get(name, "") for name in BENCHMARKS]
        body.append([model, row.pretraining, *cells, f"[{sources.index(row.note) + 1}]"])
    titles = [benchmark.title for benchmark in BENCHMARKS.values()]
    lines = ["# Zero-shot classification", "", "Top-1 / top-5 in per cent, over shapes. Bold: measured here.", ""]
    lines += markdown_table(["model", "pre-trained on", *titles, "source"], body)
    lines += [f"{number}. {source}" for number, source in enumerate(sources, start=1)] + [""]
    lines += [f"- {remark}" for remark in remarks]
    return "\n".join(lines).rstrip() + "\n"


def latex_leaderboard(rows: Sequence[LeaderboardRow], remarks: Sequence[str] = ()) -> str:
    """The same as a `table` with `booktabs`."""
    sources = _sources(rows)
    titles = " & ".join(benchmark.title for benchmark in BENCHMARKS.values())
    lines = [
        "% needs \\usepackage{booktabs}",
        *(f"% {remark}" for remark in remarks),
        "\\begin{table}",
        "\\centering",
        "\\caption{Zero-shot classification, top-1 / top-5 in per cent. Bold: measured here. Sources: "
        + "; ".join(f"[{number}] {_escape(source)}" for number, source in enumerate(sources, start=1))
        + ".}",
        f"\\begin{{tabular}}{{ll{'c' * len(BENCHMARKS)}r}}",
        "\\toprule",
        f"Model & Pre-trained on & {titles} & Source \\\\",
        "\\midrule",
    ]
    before = rows[0].measured if rows else False
    for row in rows:
        if row.measured != before:
            lines.append("\\midrule")
            before = row.measured
        model = f"\\textbf{{{_escape(row.model)}}}" if row.measured else _escape(row.model)
        cells = [_escape(row.cells.get(name, "")) for name in BENCHMARKS]
        number = sources.index(row.note) + 1
        lines.append(" & ".join([model, _escape(row.pretraining), *cells, f"[{number}]"]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _sources(rows: Sequence[LeaderboardRow]) -> list[str]:
    return list(dict.fromkeys(row.note for row in rows))


def _cell(top1: float, top5: float) -> str:
    return f"{top1:.1f} / {top5:.1f}"


_SPECIAL = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}"} | {
    character: f"\\{character}" for character in "&%$#_{}"
}


def _escape(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)
