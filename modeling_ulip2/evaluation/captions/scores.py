"""How good captions are: words in common with references, closeness in meaning, closeness to the shape itself.

Words: BLEU-1 to 4, METEOR, ROUGE-L and CIDEr by `pycocoevalcap`, the code of COCO's caption evaluation. Meaning:
cosine of sentence embeddings. Shape: cosine of the caption's text embedding with the point embedding, or with the
views' image embeddings, in the space of a frozen image-text model (CLIPScore without its factor 2.5 and its floor).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_ulip2.evaluation.captions.words import Meteor, java_is_available, split_captions
from modeling_ulip2.towers.prompts import EncodeText
from modeling_ulip2.utils.packages import require_package
from modeling_ulip2.utils.tensors import finite

BLEU_ORDERS = (1, 2, 3, 4)
SENTENCE, POINT, VIEW = "sentence_similarity", "point_score", "view_score"


@dataclass(frozen=True)
class CaptionScores:
    """Figures of N captions.

    Attributes:
        metrics: corpus figures by name: "bleu_1" to "bleu_4", "meteor", "rouge_l", "cider", in the library's units (a
            CIDEr of 1.605 is what papers call 160.5), and those added by `with_scores`.
        per_caption: N scores in the order of `ids` for each figure that has one for every caption.
        ids: of the shapes.
        tokenizer: "ptb" or "regex", see `split_captions`; figures by different tokenizers should not be compared.
        blank: ids of shapes whose caption has no word; they count, with a score of 0.
        left_out: metric -> why it is missing.
    """

    metrics: dict[str, float]
    per_caption: dict[str, list[float]]
    ids: list[str]
    tokenizer: str
    blank: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def with_scores(self, name: str, scores: Sequence[float]) -> CaptionScores:
        """The same and one more figure, the mean of a score for each caption."""
        if len(scores) != len(self.ids):
            raise ValueError(f"{len(scores)} scores {name!r} for {len(self.ids)} captions")
        metrics = self.metrics | {name: sum(scores) / len(scores)}
        per_caption = self.per_caption | {name: list(scores)}
        return CaptionScores(metrics, per_caption, self.ids, self.tokenizer, self.blank, self.left_out)

    def subset(self, ids: Iterable[str]) -> dict[str, float]:
        """Means over some of the captions of every figure that is a mean of their scores.

        CIDEr's word weights stay those of all captions; corpus figures (BLEU, METEOR) are left out.
        """
        wanted = set(ids)
        rows = [row for row, name in enumerate(self.ids) if name in wanted]
        if not rows:
            raise ValueError("none of these ids has a caption")
        means = [name for name in self.per_caption if name not in CORPUS_METRICS]
        return {name: sum(self.per_caption[name][row] for row in rows) / len(rows) for name in means}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the scores of single captions."""
        return {
            "captions": len(self.ids),
            "metrics": self.metrics,
            "tokenizer": self.tokenizer,
            "blank": len(self.blank),
            "left_out": self.left_out,
        }


# Computed from counts over all captions, not as means.
CORPUS_METRICS = (*(f"bleu_{order}" for order in BLEU_ORDERS), "meteor")


def caption_scores(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenizer: str | None = None,
    meteor: Meteor | bool | None = None,
) -> CaptionScores:
    """BLEU, METEOR, ROUGE-L and CIDEr of one caption for each shape against one or more references.

    Args:
        predictions: caption by id.
        references: captions by id, of at least these ids; the others are ignored.
        tokenizer: "ptb", "regex", or None for "ptb" where there is Java.
        meteor: a `Meteor` to use, True for one of its own, False to leave it out; None: where there is Java.

    Raises:
        ValueError: no predictions, only one (CIDEr weighs words by how many shapes they tell apart), an id without
            references, or a reference without a word.
        JavaError: a Java program that was asked for cannot run.
    """
    check_captions(predictions, references)
    ids = list(predictions)
    counts = [len(references[name]) for name in ids]
    texts = [text for name in ids for text in (predictions[name], *references[name])]
    split, used = split_captions(texts, tokenizer)
    hypotheses: dict[str, list[str]] = {}
    truths: dict[str, list[str]] = {}
    start = 0
    for name, count in zip(ids, counts, strict=True):
        hypotheses[name] = split[start : start + 1]
        truths[name] = [text for text in split[start + 1 : start + 1 + count] if text]
        start += 1 + count
        if not truths[name]:
            raise ValueError(f"the references of {name!r} hold no word: {list(references[name])}")

    metrics, per_caption = _overlap(truths, hypotheses)
    left_out = {}
    if meteor is None:
        meteor = java_is_available()
        if not meteor:
            left_out["meteor"] = "there is no Java on this machine"
    if meteor is True:
        with Meteor() as own:
            metrics["meteor"], per_caption["meteor"] = own(truths, hypotheses)
    elif isinstance(meteor, Meteor):
        metrics["meteor"], per_caption["meteor"] = meteor(truths, hypotheses)
    blank = [name for name in ids if not hypotheses[name][0]]
    return CaptionScores(metrics, per_caption, ids, used, blank, left_out)


def _overlap(
    truths: dict[str, list[str]], hypotheses: dict[str, list[str]]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    bleu = require_package("pycocoevalcap.bleu.bleu", "caption").Bleu(max(BLEU_ORDERS))
    rouge = require_package("pycocoevalcap.rouge.rouge", "caption").Rouge()
    cider = require_package("pycocoevalcap.cider.cider", "caption").Cider()
    corpus, single = bleu.compute_score(truths, hypotheses, verbose=0)
    names = [f"bleu_{order}" for order in BLEU_ORDERS]
    metrics = dict(zip(names, map(float, corpus), strict=True))
    per_caption = {name: list(map(float, scores)) for name, scores in zip(names, single, strict=True)}
    for name, scorer in (("rouge_l", rouge), ("cider", cider)):
        mean, scores = scorer.compute_score(truths, hypotheses)
        metrics[name], per_caption[name] = float(mean), list(map(float, scores))
    return metrics, per_caption


def check_captions(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> None:
    """Raises ValueError where captions cannot be scored; the message names the ids."""
    if len(predictions) < 2:
        raise ValueError(f"{len(predictions)} captions cannot be scored: it takes two shapes or more")
    if missing := [name for name in predictions if name not in references]:
        raise ValueError(f"{len(missing)} of {len(predictions)} captions have no references, e.g. {missing[0]!r}")
    for name, caption in predictions.items():
        own = references[name]
        if not isinstance(caption, str):
            raise ValueError(f"the caption of {name!r} is no string but {caption!r}")
        if isinstance(own, str) or not own or not all(isinstance(text, str) for text in own):
            raise ValueError(f"the references of {name!r} must be a list of one or more strings, not {own!r}")


def sentence_scores(
    encode_text: EncodeText, predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> list[float]:
    """Cosine of each caption with the nearest of its references in the space of a sentence encoder.

    Args:
        encode_text: texts to (n, D), e.g. `Tower.encode_text` of a ConSE pair, whose text side is all-MiniLM-L6-v2.

    Returns:
        One score for each of `predictions`, in its order; a caption without text scores 0.
    """
    check_captions(predictions, references)
    distinct = dict.fromkeys(text for name in predictions for text in references[name] if text.strip())
    embeds = _embed_texts(encode_text, [*predictions.values(), *distinct])
    scores = []
    for name, caption in predictions.items():
        own = torch.stack([embeds[text] for text in references[name] if text.strip()])  # (r, D)
        scores.append(float((own @ embeds[caption]).max()))
    return scores


def shape_scores(encode_text: EncodeText, predictions: Mapping[str, str], embeds: Mapping[str, Tensor]) -> list[float]:
    """Mean cosine of each caption's text embedding with embeddings of its shape.

    Args:
        encode_text: text side of the image-text model, texts to (n, D).
        embeds: by id, (D,) for a point embedding or (V, D) for the views, in the same space.

    Returns:
        One score for each of `predictions`, in its order; a caption without text scores 0.
    """
    if missing := [name for name in predictions if name not in embeds]:
        raise ValueError(f"{len(missing)} of {len(predictions)} captions have no embedding, e.g. {missing[0]!r}")
    if not any(caption.strip() for caption in predictions.values()):
        return [0.0] * len(predictions)
    texts = _embed_texts(encode_text, predictions.values())
    scores = []
    for name, caption in predictions.items():
        shapes = F.normalize(finite(torch.atleast_2d(embeds[name]), f"the embedding of {name!r}"), dim=-1)  # (V, D)
        scores.append(float((shapes @ texts[caption]).mean()))
    return scores


def _embed_texts(encode_text: EncodeText, texts: Iterable[str]) -> dict[str, Tensor]:
    """Normalized embedding (D,) of each distinct text; zeros for a blank one, which no encoder takes."""
    distinct = list(dict.fromkeys(texts))
    worded = [text for text in distinct if text.strip()]
    if not worded:
        raise ValueError("not one caption has a word")
    embeds = F.normalize(finite(encode_text(worded), "the text embeddings"), dim=-1).cpu()  # (n, D)
    found = dict(zip(worded, embeds, strict=True))
    return {text: found.get(text, torch.zeros(embeds.shape[1])) for text in distinct}


def read_predictions(path: str | Path) -> dict[str, str]:
    """Captions by id from JSON lines with `id` and `prediction`, as `examples/captioning.py` writes them.

    Raises:
        ValueError: a line is not such an object, or an id comes twice; the message gives the line.
    """
    predictions: dict[str, str] = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                name, caption = row["id"], row["prediction"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not a JSON object with id and prediction") from error
            if not isinstance(name, str) or not isinstance(caption, str):
                raise ValueError(f"{path}, line {number}: id and prediction must be strings")
            if name in predictions:
                raise ValueError(f"{path}, line {number}: {name!r} has a caption already")
            predictions[name] = caption
    return predictions
