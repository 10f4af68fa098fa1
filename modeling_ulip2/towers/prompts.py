"""From a name to its place in a tower's space: prompt templates, and the mean of a name's prompts."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import logging

# Texts in, one row of features for each out; need not be normalized.
EncodeText = Callable[[list[str]], Tensor]

# The 64 prompts with which ULIP and ULIP-2 were measured.
DEFAULT_TEMPLATES = "modelnet40_64"
PROMPTS_PER_CALL = 1024
# Labels whose embeddings are kept, of 4 to 5 KB each.
KEPT_LABELS = 20_000


@cache
def _named_templates() -> dict[str, list[str]]:
    text = files(__package__).joinpath("data", "templates.json").read_text(encoding="utf-8")
    return {name: entry["templates"] for name, entry in json.loads(text).items()}


def load_templates(name: str = DEFAULT_TEMPLATES) -> list[str]:
    """Prompt templates, each with one `{}` for the class name; their sources are named in `data/NOTICE.md`.

    `modelnet40_64` are the 64 prompts that ULIP and ULIP-2 use on ModelNet40 and on Objaverse-LVIS.
    """
    named = _named_templates()
    if name not in named:
        raise ValueError(f"there are no templates {name!r}; there are {', '.join(named)}")
    return list(named[name])


def resolve_templates(templates: str | Sequence[str] | None = None) -> tuple[str, ...]:
    """Templates by name, as one prompt, or as several; by default those of ULIP-2.

    Raises:
        ValueError: no template, one without exactly one `{}`, or an unknown name.
    """
    if templates is None:
        templates = DEFAULT_TEMPLATES
    if isinstance(templates, str):
        templates = load_templates(templates) if templates in _named_templates() else [templates]
    if not templates:
        raise ValueError("there is no template: pass a prompt with {} for the label.")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            known = ", ".join(_named_templates())
            raise ValueError(f"a template needs one {{}} for the label, or is a name ({known}), got {template!r}.")
    return tuple(templates)


def ensemble_prompts(prompt_embeds: Tensor) -> Tensor:
    """Embeddings of T prompts per class (C, T, D) to one embedding per class (C, D): normalize, mean, normalize."""
    mean = F.normalize(prompt_embeds.float(), dim=-1).mean(dim=1)  # (C, D)
    return F.normalize(mean, dim=-1)  # (C, D)


@torch.no_grad()
def class_embeddings(encode_text: EncodeText, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """One L2-normalized embedding for each class.

    Args:
        encode_text: called with a list of texts, returns (len(texts), D), normalized or not.
        class_names: C names, in label order.
        templates: T prompts with one `{}` each, e.g. `load_templates("modelnet40_64")`.

    Returns:
        (C, D) float32.

    Raises:
        ValueError: no names, no templates, or a template without exactly one `{}`.
    """
    if not class_names or not templates:
        raise ValueError(f"needs class names and templates, got {len(class_names)} and {len(templates)}")
    for template in templates:
        if template.count("{}") != 1:
            raise ValueError(f"the template {template!r} must have one {{}} where the class name goes")
    per_call = max(1, PROMPTS_PER_CALL // len(templates))
    chunks = [class_names[start : start + per_call] for start in range(0, len(class_names), per_call)]
    classes = []
    for chunk in logging.tqdm(chunks, desc="class embeddings", unit="call", disable=len(chunks) < 4):
        prompts = [template.replace("{}", name) for name in chunk for template in templates]
        features = encode_text(prompts)  # (C' * T, D)
        classes.append(ensemble_prompts(features.unflatten(0, (len(chunk), len(templates)))))
    return torch.cat(classes)  # (C, D)


def remembering(encode_text: EncodeText) -> EncodeText:
    """The same function, which embeds a list of texts that comes again only once."""
    known: dict[tuple[str, ...], Tensor] = {}

    def encode(texts: list[str]) -> Tensor:
        key = tuple(texts)
        if key not in known:
            known[key] = encode_text(texts)
        return known[key]

    return encode


class KeptLabels:
    """Embeds labels, each once for given templates as long as it is kept. Safe to share between threads."""

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[tuple[str, ...], str], Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, encode_text: EncodeText, labels: Sequence[str], templates: tuple[str, ...]) -> Tensor:
        """(K, D) float32, see `class_embeddings`; always of the same tower."""
        with self._lock:
            known = {label: self._rows[templates, label] for label in labels if (templates, label) in self._rows}
        new = [label for label in labels if label not in known]
        if new:  # others need not wait for these
            known |= zip(new, class_embeddings(encode_text, new, templates), strict=True)
        with self._lock:
            for label in labels:
                self._rows[templates, label] = known[label]
                self._rows.move_to_end((templates, label))
            while len(self._rows) > KEPT_LABELS:
                self._rows.popitem(last=False)
        return torch.stack([known[label] for label in labels])  # (K, D)
