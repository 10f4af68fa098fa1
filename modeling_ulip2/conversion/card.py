"""The model card of a conversion: YAML for the hub, and what a person should know."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from modeling_ulip2.data.benchmarks import BENCHMARKS
from modeling_ulip2.models.model_card import LIBRARY, PIPELINE_TAG, TAGS, point_usage, reference, table
from modeling_ulip2.models.modeling_slip import SlipModel
from modeling_ulip2.models.modeling_ulip2 import Ulip2Model

from .assemble import Conversion
from .checkpoint import PublishedCheckpoint
from .published import published_zero_shot
from .releases import Release

_UNKNOWN = "unknown: this file is none of the published ones that the conversion knows"


def model_card(
    conversion: Conversion,
    checkpoint: PublishedCheckpoint,
    release: Release | None,
    file_hash: str,
    has_record: bool,
    name: str = "FOLDER",
) -> str:
    """README.md of a converted checkpoint.

    Args:
        release: what is known of it.
        file_hash: SHA-256 of the published file.
        has_record: whether the folder holds embeddings recorded when it was converted.
        name: the folder or repository that its examples load from.
    """
    title = release.title if release else f"{conversion.layout.name} checkpoint {checkpoint.name}"
    return "\n\n".join(
        [
            f"---\n{_metadata(conversion, release, title)}\n---",
            f"# {title}",
            _introduction(conversion, checkpoint, file_hash),
            "## Use",
            _usage(conversion, name),
            "## Where it comes from",
            table(_origin(conversion, release)),
            "## What to expect",
            _expectation(release),
            "## How to verify",
            _verification(conversion, has_record, name),
            "## What the conversion did",
            _account(conversion, checkpoint, release),
            "",
        ]
    )


def _metadata(conversion: Conversion, release: Release | None, title: str) -> str:
    tags = [*TAGS, conversion.layout.name.split()[0].lower().strip(",")]
    results = reported_results(release) if release else []
    return ModelCardData(
        license=release.license if release else None,
        library_name=LIBRARY,
        tags=tags,
        pipeline_tag=PIPELINE_TAG if not isinstance(conversion.model, SlipModel) else None,
        base_model=_base_models(conversion),
        model_name=title if results else None,
        eval_results=results or None,
    ).to_yaml()


def _base_models(conversion: Conversion) -> str | None:
    """The image-text model, where it has a name on the hub."""
    config: Any = conversion.model.config
    return reference(getattr(config, "clip_name_or_path", None))[0] if conversion.tower is None else None


def reported_results(release: Release) -> list[EvalResult]:
    """The zero-shot figures that the authors report, as the hub's metadata have them; nobody has verified them."""
    results = []
    for model, pretraining in release.published:
        for benchmark, figures, source in published_zero_shot(model, pretraining):
            for metric, figure in zip(("top-1", "top-5"), figures, strict=True):
                results.append(
                    EvalResult(
                        task_type="zero-shot-classification",
                        task_name="zero-shot classification",
                        dataset_type=benchmark,
                        dataset_name=BENCHMARKS[benchmark].title,
                        metric_type="accuracy",
                        metric_name=f"{metric} accuracy, per cent",
                        metric_value=figure,
                        source_name=source,
                        source_url=release.source.split(" ")[0],
                    )
                )
        if results:
            break  # a card has one figure for a task: those of the file's own training come first
    return results


def _introduction(conversion: Conversion, checkpoint: PublishedCheckpoint, file_hash: str) -> str:
    model = conversion.model
    what = f"`{type(model).__name__}` with {model.num_parameters():,} parameters"
    if conversion.encoder is not None:
        config = getattr(model.config, "point_config", model.config)
        what += f", encoder `{config.model_type}` on clouds of {config.in_channels} columns"
    return (
        f"{what}, converted by modeling-ulip2 from `{checkpoint.name}` (SHA-256 `{file_hash}`). No value was changed."
    )


def _usage(conversion: Conversion, name: str) -> str:
    if isinstance(conversion.model, SlipModel):
        return (
            f'```python\nfrom modeling_ulip2.towers import load_tower\n\ntower = load_tower("{name}")\n'
            'tower.encode_text(["a chair"])  # (1, 512)\n```'
        )
    result = "point_embeds" if isinstance(conversion.model, Ulip2Model) else "pooled"
    return point_usage(result, name)


def _origin(conversion: Conversion, release: Release | None) -> list[tuple[str, str]]:
    rows = [
        ("source", release.source if release else _UNKNOWN),
        ("license", release.license if release else _UNKNOWN),
        ("paper", release.paper if release else _UNKNOWN),
        ("training data", release.training_data if release else _UNKNOWN),
    ]
    if isinstance(conversion.model, Ulip2Model):
        note = release.tower_note if release else _UNKNOWN
        reference = conversion.model.config.clip_name_or_path
        if conversion.tower is not None:
            rows.append(("image-text model", f"{note}: the folder `tower`"))
        else:
            rows.append(("image-text model", f"{note}: {f'`{reference}`' if reference else 'not referred to'}"))
    return rows


def _expectation(release: Release | None) -> str:
    if release is None:
        return _UNKNOWN.capitalize() + "."
    if not release.accuracy:
        return "The authors publish no figures for this file."
    return (
        table([("task", "reported by the authors, per cent"), *release.accuracy], header=True)
        + "\n\nThese figures hold under the authors' protocols; they were not measured by the conversion."
    )


def _verification(conversion: Conversion, has_record: bool, name: str) -> str:
    lines = [
        f"```bash\nulip2 verify {name}\n```",
        "runs small recorded cases of this kind of encoder on the installed code and device"
        + (", and the embeddings of this model recorded when it was converted" if has_record else "")
        + ", and prints the largest deviation.",
    ]
    if isinstance(conversion.model, Ulip2Model):
        lines.append(
            f"Zero-shot accuracy is measured by `examples/zero_shot_classification.py --model {name} --dataset "
            "DATASET --labels_file LABELS` of modeling-ulip2."
        )
    return "\n\n".join(lines)


def _account(conversion: Conversion, checkpoint: PublishedCheckpoint, release: Release | None) -> str:
    total = len(checkpoint.state_dict)
    kept = total - len(conversion.unused)
    lines = [f"Of {total} tensors in the file {kept} were taken over."]
    for reason, names in _by_value(conversion.unused).items():
        lines.append(f"- left out, {reason}: {len(names)} ({_some(names)})")
    for name, what in conversion.added.items():
        lines.append(f"- added, {what}: `{name}`")
    if release is None and conversion.assumed:
        lines.append(f"- assumed, since no weight shows them: {_fields(conversion.assumed)}")
    if checkpoint.epoch is not None:
        lines.append(f"- epoch of the file: {checkpoint.epoch}")
    return "\n".join(lines)


def _fields(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def _by_value(mapping: dict[str, str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in mapping.items():
        grouped.setdefault(value, []).append(name)
    return grouped


def _some(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:3])
    return shown if len(names) <= 3 else f"{shown}, ..."
