"""The card (README.md) that goes with what is saved: what it is, how to use it, and what is known of its training.

A card says what the object itself tells, and what its maker tells in `card_facts`; it guesses nothing. Cards that a
person wrote are never replaced, neither in a folder nor on the hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedModel

from .private_apis import UploadMixin

CARD_FILE = "README.md"
LIBRARY = "transformers"
PIPELINE_TAG = "feature-extraction"
TAGS = ("3d", "point-cloud", "ulip-2")
# As long as a card holds this line, saving again writes it anew.
MARK = "<!-- written when this was saved; remove this line, and saving leaves your text as it is -->"
# What stands in the card that transformers puts in place of a missing one when it uploads.
_PLACEHOLDER = "has been automatically generated"
_UNSAID = "not stated"


@dataclass
class CardResult:
    """A measured figure, e.g. `CardResult("ModelNet40", "top-1 accuracy, per cent", 84.7)`."""

    dataset: str
    metric: str
    value: float
    task: str = "zero-shot classification"


@dataclass
class CardFacts:
    """What a model cannot know of itself.

    Args:
        title: heading; default: the name of the class.
        license: of the weights, as the hub spells it ("mit", "bsd-3-clause", "cc-by-4.0", ...).
        datasets: hub names of what it was trained on.
        training: a sentence or more about data and training.
        results: figures that were measured.
        tags: further tags.
    """

    title: str | None = None
    license: str | None = None
    datasets: Sequence[str] = ()
    training: str | None = None
    results: Sequence[CardResult] = ()
    tags: Sequence[str] = ()


@dataclass
class Card:
    """The parts of a card that depend on the object."""

    title: str
    introduction: str
    usage: str
    rows: list[tuple[str, str]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    base_model: str | list[str] | None = None
    pipeline_tag: str = PIPELINE_TAG


class CardMixin(UploadMixin):
    """For what has `save_pretrained` and `push_to_hub`: both write a card.

    Set `card_facts` before saving to have license, data and results in it.
    """

    card_facts: CardFacts | None = None
    # a person's card in the folder that is being saved, which transformers overwrites when it uploads from there
    _kept_card: str | None = None

    def card(self, name: str = "FOLDER") -> ModelCard:
        """The card; `name` is the folder or repository that its examples load from."""
        facts, own = self.card_facts or CardFacts(), self._card(name)
        tags = list(dict.fromkeys([*TAGS, *own.tags, *facts.tags, *(getattr(self, "model_tags", None) or ())]))
        title = facts.title or own.title
        data = ModelCardData(
            license=facts.license,
            library_name=LIBRARY,
            pipeline_tag=own.pipeline_tag,
            tags=tags,
            base_model=own.base_model,
            datasets=list(facts.datasets) or None,
            # the hub wants a name of a license that it does not know
            **({"license_name": "see-the-card"} if facts.license == "other" else {}),  # type: ignore[arg-type]
            model_name=title if facts.results else None,
            eval_results=[_eval_result(result) for result in facts.results] or None,
        )
        parts = [f"---\n{data.to_yaml()}\n---", MARK, f"# {title}", own.introduction, "## Use", own.usage]
        parts += ["## Facts", table(own.rows)]
        if facts.training:
            parts += ["## Training", facts.training]
        if facts.results:
            figures = [(f"{r.task}, {r.dataset}, {r.metric}", f"{r.value:g}") for r in facts.results]
            parts += ["## Results", table([("task", "measured"), *figures], header=True)]
        return ModelCard("\n\n".join([*parts, ""]))

    def _card(self, name: str) -> Card:
        raise NotImplementedError

    def _known_rows(self) -> list[tuple[str, str]]:
        """What its maker tells of a model, or that nothing is told."""
        facts = self.card_facts or CardFacts()
        datasets = ", ".join(f"`{dataset}`" for dataset in facts.datasets)
        return [("license", facts.license or _UNSAID), ("training data", datasets or _UNSAID)]

    def write_card(self, folder: str | os.PathLike[str], name: str = "FOLDER", replace: bool = True) -> None:
        """Writes README.md unless there is one that a person wrote; `replace=False`: unless there is one at all."""
        path = Path(folder) / CARD_FILE
        if path.exists() and not (replace and MARK in path.read_text(encoding="utf-8")):
            return
        path.write_text(str(self.card(name)), encoding="utf-8")

    def prepare_upload(self, folder: str, repo_id: str) -> None:
        """Called by every upload of transformers when the files are ready, its own card or the hub's among them."""
        path = Path(folder) / CARD_FILE
        found = path.read_text(encoding="utf-8") if path.exists() else None
        if self._kept_card is not None:
            path.write_text(self._kept_card, encoding="utf-8")
        elif found is None or _PLACEHOLDER in found or MARK in found:
            card = self.card(repo_id)
            added = (ModelCard(found).data.get("tags") or []) if found else []
            card.data["tags"] = list(dict.fromkeys([*card.data["tags"], *added]))
            path.write_text(str(card), encoding="utf-8")


class ModelCardMixin(CardMixin, PreTrainedModel):
    """Models: to stand before `PreTrainedModel` among the bases."""

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | os.PathLike[str], **kwargs: Any
    ) -> None:
        """As in transformers, with a card; see `CardFacts`."""
        path = Path(save_directory) / CARD_FILE
        written = path.read_text(encoding="utf-8") if path.is_file() else MARK
        self._kept_card = None if MARK in written else written
        try:
            super().save_pretrained(save_directory, **kwargs)
        finally:
            self._kept_card = None
        if kwargs.get("is_main_process", True) and path.parent.is_dir() and not kwargs.get("push_to_hub"):
            self.write_card(save_directory)

    def _card(self, name: str) -> Card:
        config: Any = self.config
        encoder = getattr(config, "point_config", config)
        parameters = sum(p.numel() for n, p in self.named_parameters() if not n.startswith("clip_model."))
        rows = [
            ("encoder", f"`{encoder.model_type}`, clouds of {encoder.in_channels} columns"),
            ("parameters", f"{parameters:,}, the image-text model not counted"),
        ]
        projects = hasattr(self, "point_projection")
        base, tower = _tower(config) if projects else (None, _UNSAID)
        if projects:
            rows += [("shared space", f"{config.projection_dim} dimensions"), ("image-text model", tower)]
        rows += self._known_rows()
        what = "Point clouds to vectors in the space of an image-text model" if projects else "Point clouds to vectors"
        introduction = f"{what}: `{type(self).__name__}` of modeling-ulip2 (ULIP-2, arXiv 2305.08275)."
        usage = point_usage("point_embeds" if projects else "pooled", name)
        if hasattr(self, "get_text_features") and tower != _UNSAID:
            usage += "\n\n" + pipeline_usage(name)
        return Card(type(self).__name__, introduction, usage, rows, [encoder.model_type], base)


class ProcessorCardMixin(CardMixin):
    """Processors and feature extractors: their card gives way to that of the model in the same folder."""

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers, with a card if the folder has none."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        self.write_card(save_directory, replace=False)
        return saved

    def _card(self, name: str) -> Card:
        extractor = getattr(self, "feature_extractor", self)
        kept = ("num_points", "in_channels", "normalize", "fill_color", "sampling", "up_axis", "axes", "seed")
        rows = [(field_name.replace("_", " "), f"{getattr(extractor, field_name)}") for field_name in kept]
        kind = "AutoFeatureExtractor" if extractor is self else "AutoProcessor"
        argument = "cloud" if extractor is self else 'point_clouds=cloud, text=["a chair"]'
        usage = (
            f"```python\nfrom transformers import {kind}\n\n"
            f'processor = {kind}.from_pretrained("{name}", trust_remote_code=True)\n'
            f"processor({argument})  # cloud: (N, 3) or (N, 6), y up, rgb in [0, 1]\n```"
        )
        title = type(self).__name__
        return Card(title, f"How clouds are prepared: `{title}` of modeling-ulip2.", usage, rows)


def point_usage(result: str, name: str = "FOLDER") -> str:
    """How to get `result` of a cloud from the model in the folder or repository `name`."""
    return (
        "```python\nfrom transformers import AutoFeatureExtractor, AutoModel\n\n"
        f'model = AutoModel.from_pretrained("{name}", trust_remote_code=True).eval()\n'
        f'features = AutoFeatureExtractor.from_pretrained("{name}", trust_remote_code=True)\n'
        f"{result} = model(**features(cloud)).{result}  # cloud: (N, 3) or (N, 6), y up, rgb in [0, 1]\n```\n\n"
        "After `import modeling_ulip2` no remote code is needed."
    )


def pipeline_usage(name: str = "FOLDER") -> str:
    """How to classify a file with the model in the folder or repository `name`."""
    return (
        "```python\nimport modeling_ulip2\nfrom transformers import pipeline\n\n"
        f'classify = pipeline("zero-shot-point-cloud-classification", model="{name}")\n'
        'classify("chair.glb", candidate_labels=["chair", "table", "lamp"])\n```'
    )


def table(rows: Iterable[tuple[str, str]], header: bool = False) -> str:
    """Rows of two cells in Markdown; the first is the header if `header`."""
    lines = [f"| {left} | {right} |" for left, right in rows]
    head = lines.pop(0) if header else "| | |"
    return "\n".join([head, "| --- | --- |", *lines])


def _tower(config: Any) -> tuple[str | None, str]:
    """Hub name of the image-text model, and what to say of it."""
    return reference(config.clip_name_or_path, config.clip_config)


def reference(name: str | None, config: Any = None) -> tuple[str | None, str]:
    """Hub name of a model that a checkpoint refers to, and what to say of it.

    Args:
        name: hub name, perhaps with a folder behind it, or local path.
        config: its configuration, if the checkpoint holds its weights.
    """
    if config is not None:
        return None, f"`{config.model_type}`, part of this checkpoint"
    if name is None:
        return None, _UNSAID
    if name.startswith("open_clip:") and not os.path.exists(name.removeprefix("open_clip:")):
        return None, f"`{name}`"
    if re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+){1,}", name) and not os.path.isdir(name):
        return "/".join(name.split("/")[:2]), f"`{name}`"
    return None, f"`{os.path.basename(os.path.normpath(name))}`, a local folder"


def _eval_result(result: CardResult) -> EvalResult:
    return EvalResult(
        task_type=_slug(result.task),
        task_name=result.task,
        dataset_type=_slug(result.dataset),
        dataset_name=result.dataset,
        metric_type=_slug(result.metric),
        metric_name=result.metric,
        metric_value=result.value,
    )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


__all__ = ["Card", "CardFacts", "CardMixin", "CardResult", "ModelCardMixin", "ProcessorCardMixin", "reference"]
