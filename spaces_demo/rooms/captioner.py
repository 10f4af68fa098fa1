"""What the Caption room computes: sentences about a shape, word by word. Knows nothing about Gradio."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from modeling_ulip2 import Ulip2CaptioningProcessor, Ulip2Embedder, Ulip2ForConditionalGeneration
from modeling_ulip2.evaluation.captions.verdict import captioner_verdict
from modeling_ulip2.geometry.shapes import Shape

from .engine import checked_text, gpu

# Ours: questions and answers that are remembered, and the length of an answer.
MAX_TURNS, MAX_NEW_TOKENS = 6, 80
_PATIENCE_SECONDS = 120


class UnfitError(ValueError):
    """A captioner that was measured and is no better than chance; the message says what was found."""


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str


class Captioner:
    """A captioning model and its processor.

    Args:
        model: in evaluation mode.
        name: shown to people.
        max_new_tokens: length of an answer.
    """

    def __init__(self, model: Any, processor: Any, name: str, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.model, self.processor, self.name = model, processor, name
        self.max_new_tokens = max_new_tokens
        self.embedder = Ulip2Embedder(model, processor.feature_extractor, name=name)
        self._lock = threading.Lock()  # one answer at a time: two would take twice as long each

    @classmethod
    def load(cls, name_or_path: str | Path) -> Captioner:
        """Reads a folder, or a repository of the hub; the encoder and the language model as the model names them.

        Raises:
            UnfitError: its own report says that it is not worth showing.
            ValueError, OSError: it holds no captioning model, or what it names is gone.
        """
        name = str(name_or_path)
        if reason := captioner_verdict(name):
            raise UnfitError(f"The captioner {Path(name).name} is not worth showing. {reason}")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = Ulip2ForConditionalGeneration.from_pretrained(name).eval()
        model.load_parts()
        return cls(model.to(device), Ulip2CaptioningProcessor.from_pretrained(name), Path(name).name)

    @gpu
    def read(self, shape: Shape) -> torch.Tensor:
        """What the frozen encoder makes of a shape, (1, G, C): kept, so that further questions cost less."""
        return self.embedder.embed_shapes([shape.cloud])

    @gpu
    def answer(self, features: torch.Tensor, question: str, history: Sequence[Turn] = ()) -> Iterator[str]:
        """The answer so far, longer and longer; whoever stops asking for more ends the work.

        Args:
            features: of `read`.
            history: earlier turns about the same shape; the last `MAX_TURNS` are remembered.

        Raises:
            ValueError: nothing is asked, or too much.
        """
        question = checked_text(question)
        if not question:
            raise ValueError("Ask something about the shape.")
        inputs = self.processor.apply_chat_template(
            _conversation(question, history[-MAX_TURNS:]), add_generation_prompt=True, tokenize=True, return_dict=True
        )
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        streamer = TextIteratorStreamer(self.processor.tokenizer, timeout=_PATIENCE_SECONDS, skip_special_tokens=True)
        stopped, failures = threading.Event(), []

        def work() -> None:
            try:
                self.model.generate(
                    **inputs,
                    point_features=features.to(self.model.device, self.model.dtype),
                    max_new_tokens=self.max_new_tokens,
                    num_beams=1,
                    do_sample=False,
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([_Stop(stopped)]),
                )
            except Exception as error:
                failures.append(error)
                streamer.end()

        with self._lock:
            worker = threading.Thread(target=work, daemon=True)
            worker.start()
            said = ""
            try:
                for words in streamer:
                    said += words
                    yield said.strip()
            finally:
                stopped.set()
                worker.join()
        if failures:
            raise failures[0]


class _Stop(StoppingCriteria):
    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._event.is_set(), device=input_ids.device)


def _conversation(question: str, history: Sequence[Turn]) -> list[dict[str, Any]]:
    """Messages of which the first holds the cloud."""
    messages: list[dict[str, Any]] = []
    for turn in history:
        messages.append({"role": "user", "content": [{"type": "text", "text": turn.question}]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer or "…"}]})
    messages.append({"role": "user", "content": [{"type": "text", "text": question}]})
    messages[0]["content"].insert(0, {"type": "point_cloud"})
    return messages
