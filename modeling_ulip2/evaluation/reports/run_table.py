"""Results of fine-tuning and probing as a Markdown table: mean and standard deviation over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from modeling_ulip2.utils.markdown import markdown_table


def run_table(results: list[dict[str, Any]]) -> list[str]:
    """Lines of a Markdown table with a row for every initialization, method and number of shots."""
    columns = {
        "accuracy": "overall",
        "class_average_accuracy": "class average",
        "voted_accuracy": "overall, votes",
        "voted_class_average_accuracy": "class average, votes",
        "best_epoch_accuracy": "overall, best epoch on the test set",
    }
    columns = {key: title for key, title in columns.items() if any(key in result for result in results)}
    rows = []
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["initialization"], result["method"], result["shots"]), []).append(result)
    for (initialization, method, shots), group in groups.items():
        cells = [_spread([100 * result[key] for result in group if key in result]) for key in columns]
        names = [initialization, method.replace("_", " "), str(shots or "all"), str(len(group))]
        rows.append(names + cells)
    return markdown_table(["from", "method", "clouds per class", "seeds", *columns.values()], rows)


def _spread(values: list[float]) -> str:
    if not values:
        return "–"
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")
