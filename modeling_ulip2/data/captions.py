"""What a captioning model learns from: shapes, texts about them, and the collator that makes a batch of both."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.data.collator import CloudCollator
from modeling_ulip2.data.pairs import CAPTIONS_CONFIG, CLOUDS_CONFIG, CONVERSATIONS_CONFIG
from modeling_ulip2.data.reading import (
    POINT_COLUMNS,
    config_names,
    decode_row,
    load_config,
    on_the_hub,
    read_triplets,
)
from modeling_ulip2.models.captioning_card import PROMPT

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

logger = logging.getLogger(__name__)

Text = dict[str, Any]


def read_captioned_shapes(dataset: str, **hub: Any) -> Dataset:
    """The shapes of a triplets dataset, or of a folder of texts that brings its clouds along; all rows.

    Args:
        hub: see `read_triplets`.

    Raises:
        FileNotFoundError: `dataset` is no folder, or holds neither.
    """
    folder = Path(dataset).expanduser()
    if folder.is_dir():
        has_clouds = (folder / CLOUDS_CONFIG).is_dir()
    else:
        with on_the_hub(dataset, "build triplets with `ulip2 build`"):
            has_clouds = CLOUDS_CONFIG in config_names(dataset, **hub)
    if has_clouds:
        return load_config(str(folder) if folder.is_dir() else dataset, CLOUDS_CONFIG, **hub)
    return read_triplets(dataset, **hub)


def read_texts(source: str | None, shapes: Dataset, top_k: int | None = None, **hub: Any) -> list[Text]:
    """Texts about `shapes`: `{"id", "captions"}` with one shape each, or `{"id", "messages"}`, in the source's order.

    Args:
        source: a folder or hub repository with the config `captions` or `conversations`; None: the captions of the
            triplets themselves.
        shapes: texts about other shapes are left out, with a note in the log.
        top_k: captions to keep of each shape, best first; None: all. A triplet keeps the best `top_k` of each view.
        hub: of the source, see `load_config`.

    Raises:
        ValueError: the source is no such folder, or has no text about any of the shapes.
    """
    if source is None:
        texts = _texts_of_triplets(shapes, top_k)
    else:
        texts = _texts_of_pairs(source, top_k, hub)
    known = set(shapes["id"])
    found = [text for text in texts if text["id"] in known]
    if not found:
        raise ValueError(
            f"{source or 'the dataset'} has no text about any of the {len(known)} shapes, such as "
            f"{next(iter(known), None)!r}"
        )
    silent = len(known - {text["id"] for text in found})
    if silent or len(found) < len(texts):
        logger.info(f"{silent} of {len(known)} shapes have no text; {len(texts) - len(found)} texts have no shape")
    return found


def _texts_of_triplets(shapes: Dataset, top_k: int | None) -> list[Text]:
    columns = [name for name in ("id", "captions", "caption_scores") if name in shapes.column_names]
    if "captions" not in columns:
        raise ValueError("the shapes come without captions: name a source of texts")
    texts = []
    for row in shapes.select_columns(columns):
        ranked = _rank_captions(row["captions"], row.get("caption_scores"), top_k)
        if ranked:
            texts.append({"id": row["id"], "captions": ranked})
    return texts


def _rank_captions(
    captions: Sequence[Sequence[str]], scores: Sequence[Sequence[float | None]] | None, top_k: int | None
) -> list[str]:
    """The different captions [V][k] of a shape, best first: by score, or by rank in the view where scores are None."""
    best: dict[str, tuple[bool, float]] = {}
    for view, own in enumerate(captions):
        for rank, caption in enumerate(own[:top_k]):
            score = scores[view][rank] if scores is not None else None
            key = (True, float(rank)) if score is None else (False, -score)
            best[caption] = min(key, best.get(caption, key))
    return sorted(best, key=lambda caption: best[caption])


def _texts_of_pairs(source: str, top_k: int | None, hub: Mapping[str, Any]) -> list[Text]:
    if not Path(source).expanduser().is_dir():
        with on_the_hub(source, "make texts with `ulip2 describe`"):
            config_names(source, **hub)
    for config in (CAPTIONS_CONFIG, CONVERSATIONS_CONFIG):
        try:
            rows = load_config(source, config, **hub)
        except (ValueError, FileNotFoundError):
            continue
        if config == CAPTIONS_CONFIG:
            return [{"id": row["id"], "captions": row["captions"][:top_k]} for row in rows if row["captions"]]
        return [{"id": row["id"], "messages": row["messages"]} for row in rows]
    raise ValueError(
        f"{source} has neither the config {CAPTIONS_CONFIG!r} nor {CONVERSATIONS_CONFIG!r}: make one with "
        "`ulip2 describe`, dataset_scripts/cap3d.py or pointllm.py"
    )


class CaptionDataset(TorchDataset):
    """Texts by index, each with its shape.

    Args:
        shapes: rows with `id`, `xyz` and perhaps `rgb`.
        texts: of `read_texts`.
        features: what the frozen encoder makes of the shapes; None: rows carry the clouds.
    """

    def __init__(self, shapes: Dataset, texts: Sequence[Text], features: Mapping[str, Tensor] | None = None):
        place = {name: row for row, name in enumerate(shapes["id"])}
        self.texts = [text for text in texts if text["id"] in place]
        if not self.texts:
            raise ValueError(f"none of the {len(texts)} texts is about one of the {len(place)} shapes")
        self._rows = [place[text["id"]] for text in self.texts]
        columns = [name for name in POINT_COLUMNS if name in shapes.column_names]
        self._shapes = shapes.select_columns(columns).with_format("arrow")
        self._features = features

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`id`, `captions` or `messages`, and `point_features` (G, C) or `xyz`, `rgb`; `text` tells apart the texts
        of one shape."""
        text = self.texts[index] | {"text": index}
        if self._features is not None:
            return text | {"point_features": self._features[text["id"]]}
        return decode_row(self._shapes[self._rows[index]]) | text


class CaptionCollator(CloudCollator):
    """Turns rows of a `CaptionDataset` into inputs of `Ulip2ForConditionalGeneration` with labels.

    Of several captions one is drawn in each pass over the data; conversations are taken as they are. What is drawn
    depends on `seed`, the pass and the row's `id` alone, as in `TripletCollator`.

    Args:
        processor: a `Ulip2CaptioningProcessor`.
        prompt: what the user says before a caption.
        augmentation: changes to the clouds; None: none. Rows with features have no cloud to change.
        seed: of all draws.
    """

    def __init__(
        self,
        processor: Any,
        prompt: str = PROMPT,
        augmentation: PointAugmentation | None = None,
        seed: int = 0,
    ):
        super().__init__(processor.feature_extractor, augmentation, seed)
        self.processor = processor
        self.prompt = prompt
        self._draws_captions = True

    def for_evaluation(self) -> Self:
        """The same without augmentation, with the best caption of each shape."""
        other = super().for_evaluation()
        other._draws_captions = False
        return other

    def _draws_anew(self) -> bool:
        return self._draws_captions

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """B rows -> `input_ids`, `attention_mask`, `labels` (B, L), the Q-Former's instruction where it reads one, and
        `point_features` (B, G, C) or `point_values` (B, N, 3 or 6)."""
        rngs = [self._rng(row) for row in rows]
        conversations = [self.conversation(row, rng) for row, rng in zip(rows, rngs, strict=True)]
        batch = self.processor.apply_chat_template(
            conversations,
            tokenize=True,
            return_dict=True,
            return_labels=True,
        )
        if "point_features" in rows[0]:
            shapes = {"point_features": torch.stack([row["point_features"] for row in rows])}
        else:
            shapes = {"point_values": self._points(rows, rngs)}
        return dict(batch) | shapes

    def conversation(self, row: Mapping[str, Any], rng: Any) -> list[dict[str, Any]]:
        """Messages about one cloud, for `apply_chat_template`."""
        if "messages" in row:
            return row["messages"]
        captions = row["captions"]
        chosen = int(rng.integers(len(captions))) if self._draws_captions else 0
        return [*question(self.prompt), {"role": "assistant", "content": [{"type": "text", "text": captions[chosen]}]}]


def question(prompt: str, with_cloud: bool = True) -> list[dict[str, Any]]:
    """What the user says about a cloud whose points are passed apart from the text."""
    cloud = [{"type": "point_cloud"}] if with_cloud else []
    return [{"role": "user", "content": [*cloud, {"type": "text", "text": prompt}]}]
