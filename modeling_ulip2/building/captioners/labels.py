"""Captions without any annotation: what the tower takes a view for, and its main colors."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from modeling_ulip2.building.stages.base import Batch
from modeling_ulip2.building.stages.colors import ColorNamer
from modeling_ulip2.building.stages.tower import HubPairs, describe_tower, shared_tower
from modeling_ulip2.data.class_names import load_class_names
from modeling_ulip2.data.images import open_view

from .base import Captioner

# A view from behind says little: the object's other views share in the choice of its name.
SHARE_OF_OBJECT = 0.5


def read_vocabulary(source: str) -> list[str]:
    """Names from a text file, one a line, or from a list of class names that the package has.

    Underscores become blanks, and what a bracket opens goes: "fan_(electric)" is a "fan".
    """
    path = Path(source)
    if path.is_file():
        lines = path.read_text(encoding="utf-8").splitlines()
    else:
        try:
            lines = load_class_names(source)
        except ValueError as error:
            raise ValueError(
                f"the vocabulary {source!r} is neither a text file nor a list of names: {error}"
            ) from None
    names = (line.partition("(")[0].replace("_", " ").split() for line in lines)
    unique = list(dict.fromkeys(" ".join(words) for words in names if words))
    if not unique:
        raise ValueError(f"the vocabulary {source} has no names")
    return unique


def share_with_object(embeds: np.ndarray) -> np.ndarray:
    """Embeddings of an object's views (V, D), each moved towards their mean."""
    return (1 - SHARE_OF_OBJECT) * embeds + SHARE_OF_OBJECT * embeds.mean(axis=0)  # (V, D)


def with_article(words: str) -> str:
    return f"{'an' if words[:1].lower() in tuple('aeiou') else 'a'} {words}"


class LabelsCaptioner(Captioner):
    """`num_names` captions per view such as "a brown and white armchair".

    The names are those of the vocabulary whose text embedding is nearest to the view's embedding, averaged with the
    mean of all views; the colors are named from the pixels of the view that the object covers.
    """

    batch_size = 32
    on_gpu = True

    def __init__(
        self,
        tower: str,
        vocabulary: str = "objaverse_lvis",
        num_names: int = 2,
        device: str | None = None,
        dtype: str = "float32",
        hub: HubPairs = (),
    ) -> None:
        self.tower = shared_tower(tower, device, dtype, hub)
        self.source, self.names, self.num_names = vocabulary, read_vocabulary(vocabulary), num_names
        self.color_namer = ColorNamer()
        self.name_embeds = self.tower.encode_text(self.names).cpu().numpy()  # (names, D)

    def describe(self) -> dict[str, Any]:
        digest = hashlib.sha256("\n".join(self.names).encode()).hexdigest()
        source = Path(self.source).name
        vocabulary = {"source": source, "names": len(self.names), "sha256": digest}
        return {**describe_tower(self.tower), "vocabulary": vocabulary, "captions_per_view": self.num_names}

    def caption(self, batch: Batch) -> list[list[list[str]]]:
        return [
            [self.words(*of_view) for of_view in zip(views, alpha, share_with_object(embeds), strict=True)]
            for views, alpha, embeds in zip(batch["views"], batch["alpha"], batch["image_embeds"], strict=True)
        ]

    def words(self, view: dict[str, Any], alpha: np.ndarray, embed: np.ndarray) -> list[str]:
        """Captions of one view: encoded image, alpha (H, W) and embedding (D,); none where the view is blank."""
        colors = self.color_namer(np.asarray(open_view(view)), alpha)
        if not colors:
            return []
        nearest = np.argsort(-(self.name_embeds @ embed), kind="stable")[: self.num_names]
        return [with_article(f"{' and '.join(colors)} {self.names[i]}") for i in nearest]
