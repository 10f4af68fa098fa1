"""Conversations about point clouds: their messages, a plain template, and which of their tokens are answers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

logger = logging.getLogger(__name__)

# For language models without a chat template (and, by the name "plain", for those whose template is long): what
# people say ends with a line break, what the model says with its end token. Ours.
PLAIN = "plain"
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% if message['role'] != 'assistant' or not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
)


@dataclass
class Message:
    """A message with its content as one string.

    Attributes:
        role, content: as templates take them; the point token stands for clouds.
        words: the text alone.
        clouds: what stands for each cloud: an array, a mapping, a path, or None.
    """

    role: str
    content: str
    words: str
    clouds: list[Any]


def read_message(message: Mapping[str, Any], point_token: str) -> Message:
    """Joins the parts of a message.

    Raises:
        ValueError: an unknown part, text with the point token in it, or a user who says nothing.
    """
    content = message.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
    text, words, clouds = "", [], []
    for part in parts:
        kind = part.get("type")
        if kind == "text":
            if point_token in part["text"]:
                raise ValueError(
                    f"The text {part['text']!r:.80} holds {point_token}: give a cloud as a part of its own, "
                    '{"type": "point_cloud", ...}.'
                )
            text += part["text"]
            words.append(part["text"].strip())
        elif kind == "point_cloud":
            text += point_token
            given = [part[name] for name in ("point_cloud", "path") if part.get(name) is not None]
            clouds.append(given[0] if given else None)
        else:
            raise ValueError(f"A part of a message is 'text' or 'point_cloud', got type {kind!r}.")
    if message["role"] == "user" and not any(words):
        raise ValueError("A message of the user is empty: say what to do, such as 'describe the 3d model.'")
    return Message(message["role"], text, " ".join(words), clouds)


def read_clouds(shapes: Sequence[Any], num_points: int) -> list[Any] | None:
    """Clouds of messages as the feature extractor takes them; None if there is none, or data for none.

    Raises:
        ValueError: some come without data, or what is given is no cloud.
        ImportError: one is a path and the package is not installed.
    """
    missing = sum(shape is None for shape in shapes)
    if missing == len(shapes):
        return None
    if missing:
        raise ValueError(f"Of {len(shapes)} point clouds {missing} come without data: give all or none.")
    return [_as_mapping(_read_cloud(shape, num_points)) for shape in shapes]


def _read_cloud(shape: Any, num_points: int) -> Any:
    try:
        from modeling_ulip2.geometry.inputs import as_cloud
    except ImportError as error:
        if isinstance(shape, (str, os.PathLike)):
            raise ImportError(
                f"Reading {shape} needs the package modeling-ulip2: install it, or pass the points as an array "
                "(N, 3) or (N, 6)."
            ) from error
        return shape
    cloud, warnings = as_cloud(shape, num_points)
    for warning in warnings:
        logger.warning("%s: %s", shape, warning)
    return cloud


def _as_mapping(cloud: Any) -> Any:
    """A batch holds arrays (N, 3), (N, 6) and mappings beside each other."""
    if isinstance(cloud, Mapping):
        return cloud
    return {"xyz": cloud[:, :3]} if cloud.shape[-1] == 3 else {"xyz": cloud[:, :3], "rgb": cloud[:, 3:]}


def answer_spans(
    messages: Sequence[Message], render: Callable[..., str], end_token: str | None
) -> list[tuple[int, int]]:
    """Where in a rendered conversation what assistants say begins, and ends behind the end token.

    Args:
        render: messages, and `add_generation_prompt`, to text.

    Raises:
        ValueError: no assistant speaks, one says nothing, or the template does not render the beginning of a
            conversation as the beginning of its text.
    """
    text, spans = render(messages), []

    def length(count: int, add_generation_prompt: bool) -> int:
        beginning = render(messages[:count], add_generation_prompt=add_generation_prompt)
        if not text.startswith(beginning):
            raise ValueError(
                "The chat template does not render a conversation as the beginning of its continuation, so that what "
                "the assistant says cannot be told apart: pass chat_template='plain'."
            )
        return len(beginning)

    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        start, stop = length(index, True), length(index + 1, False)
        end = text.find(end_token, start, stop) if end_token else -1
        if not text[start : stop if end < 0 else end].strip():
            raise ValueError(f"The assistant's message {index} is empty: there is nothing to learn from.")
        spans.append((start, stop if end < 0 else end + len(end_token or "")))
    if not spans:
        raise ValueError("A conversation to learn from needs a message of role 'assistant'.")
    return spans


def label_tokens(ids: Any, offsets: Any, spans: Sequence[Sequence[tuple[int, int]]]) -> Any:
    """Labels (B, L): the ids of tokens that lie, if only in part, within the spans of their text, and -100.

    Args:
        ids: (B, L).
        offsets: (B, L, 2) where in its text each token begins and ends; equal numbers where nothing stands for it.
        spans: of each text.
    """
    starts, ends = offsets[..., 0], offsets[..., 1]
    labels = 0 * ids - 100
    for row, found in enumerate(spans):
        for start, stop in found:
            said = (ends[row] > start) & (starts[row] < stop)  # (L,)
            labels[row][said] = ids[row][said]
    return labels


__all__ = ["PLAIN", "PLAIN_TEMPLATE", "Message", "answer_spans", "label_tokens", "read_clouds", "read_message"]
