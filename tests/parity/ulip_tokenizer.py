"""Token ids as ULIP's evaluation makes them, for reproducing published figures to the last prompt."""

from __future__ import annotations

from collections.abc import Sequence

import regex
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT_LENGTH = 77


class UlipTokenizer(SimpleTokenizer):
    """CLIP's byte-pair tokenizer with the two habits in which ULIP's copy differs from open_clip's.

    A text that is too long loses its end token, where open_clip puts one in the last place; and "<|endoftext|>" inside
    a text is the end token, where open_clip reads it as punctuation and letters. On every other text the ids are
    equal, and that holds for all prompts of the 64 templates with the class names of this package.
    """

    def __init__(self) -> None:
        super().__init__(context_length=CONTEXT_LENGTH)
        specials = {START: self.sot_token_id, END: self.eot_token_id}
        self.encoder |= specials
        self.cache = {text: text for text in specials}
        self.pat = regex.compile(
            "|".join(map(regex.escape, specials)) + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
            regex.IGNORECASE,
        )

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> Tensor:
        """Ids (n, context_length) int64, padded with 0."""
        length = context_length or CONTEXT_LENGTH
        texts = [texts] if isinstance(texts, str) else texts
        ids = torch.zeros(len(texts), length, dtype=torch.long)  # (n, L)
        for row, text in zip(ids, texts, strict=True):
            tokens = [self.sot_token_id, *self.encode(text), self.eot_token_id][:length]
            row[: len(tokens)] = torch.tensor(tokens)
        return ids
