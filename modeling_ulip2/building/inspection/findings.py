"""The findings as a page of Markdown."""

from __future__ import annotations

from collections import Counter
from typing import Any

SHOWN = 10  # examples of a defect


def findings_markdown(report: dict[str, Any], sheet: str) -> str:
    counts, captions = report["counts"], report["captions"]
    lines = [f"# {report['dataset']}: what is in it", ""]
    lines += [f"- {name.replace('_', ' ')}: {value:,}" for name, value in counts.items() if isinstance(value, int)]
    for name in ("errors", "licenses", "sources"):
        if counts.get(name):
            listed = ", ".join(f"{key or 'unknown'} {value:,}" for key, value in sorted(counts[name].items()))
            lines.append(f"- {name}: {listed}")
    lines += ["", f"![samples]({sheet})", "", "## Defects", "", *_defects(report), "", "## Captions", ""]
    words = captions["words"]
    lines += [
        f"- {captions['captions']:,} captions, {captions['captions_per_view']:.1f} a view; "
        f"{captions['views_without_captions']:,} views have none",
        f"- words: {words['mean']:.1f} on average, median {words['median']}, from {words['min']} to {words['max']}",
        f"- diversity: distinct-1 {captions['distinct_1']:.4f}, distinct-2 {captions['distinct_2']:.4f}; "
        f"{captions['different_captions']:,} different captions",
        f"- {100 * captions['shared_between_objects']:.1f} % of an object's captions are another object's, too; "
        f"{captions['repeated_within_a_view']:,} are repeated within a view",
        "- most frequent as a view's best: "
        + "; ".join(f"“{text}” ({count:,})" for text, count in captions["most_frequent_best"][:5]),
        "",
    ]
    if captions["without_scores"]:
        lines += [f"{captions['without_scores']:,} captions have no score: their release tells none.", ""]
    if captions["scores"]:
        histogram = _histogram(captions["scores"], captions["best_scores"])
        lines += ["Scores of all captions, and of each view's best:", "", "```", *histogram, "```", ""]
    return "\n".join(lines)


def _defects(report: dict[str, Any]) -> list[str]:
    lines = []
    found = Counter(name for problems in report["problems"].values() for name in problems)
    for name, count in found.most_common():
        lines.append(f"- **{name}**: {count:,} objects")
        examples = [(key, own[name]) for key, own in report["problems"].items() if name in own][:SHOWN]
        lines += [f"  - `{key}`{f': {text}' if text else ''}" for key, text in examples]
    groups = report["near_duplicates"]
    if groups:
        lines.append(f"- **look the same**: {sum(map(len, groups)):,} objects in {len(groups):,} groups")
        lines += [f"  - {', '.join(f'`{name}`' for name in group[:SHOWN])}" for group in groups[:SHOWN]]
    for name, text in report["unreadable_files"].items():
        lines.append(f"- **unreadable file** `{name}`: {text}")
    if report["repeated_ids"]:
        shown = ", ".join(f"`{name}`" for name in report["repeated_ids"][:SHOWN])
        lines.append(f"- **ids that occur more than once**: {len(report['repeated_ids']):,}: {shown}")
    return lines or ["None was found."]


def _histogram(scores: list[Any], best: list[Any]) -> list[str]:
    counts, of_best = ({low: count for low, _, count in own} for own in (scores, best))
    most = max([*counts.values(), *of_best.values(), 1])
    lines = []
    for low, high, count in scores:
        bars = ("#" * round(30 * count / most), "=" * round(30 * of_best.get(low, 0) / most))
        lines.append(
            f"{low:6.2f} to {high:5.2f}  {count:9,} {bars[0]:<30}  {of_best.get(low, 0):9,} {bars[1]}".rstrip()
        )
    return lines
