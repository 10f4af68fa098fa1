"""Instructions in PointLLM's layout become conversations about shapes, ready for `apply_chat_template`.

    python dataset_scripts/pointllm.py --json PointLLM_complex_instruction_70K.json --clouds 8192_npy --output PAIRS
    python dataset_scripts/pointllm.py --json … --triplets TRIPLETS --output PAIRS

The file is a list of `{"object_id", "conversation_type", "conversations": [{"from": "human", "value": "<point>\\n…"},
{"from": "gpt", "value": …}, …]}`. The cloud goes where `<point>` stands. What cannot be used is in `errors.parquet`.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from modeling_ulip2.building.sources.pairs import Error, NamedShapes, PairsError, convert_texts, error, reader_parser
from modeling_ulip2.data.pairs import CONVERSATIONS_CONFIG
from modeling_ulip2.utils.scripts import run_main

TEXT = "Conversations from `{file}` in PointLLM's layout (Xu et al. 2024), read by `dataset_scripts/pointllm.py`."
POINT = "<point>"
ROLES = {"human": "user", "gpt": "assistant"}
DEFAULT_TYPE = "simple_description"  # PointLLM's, where an entry has none


class MalformedError(ValueError):
    """An entry that is no conversation; the first argument is a word for the reason, the second a sentence."""


def read_messages(turns: Any) -> list[dict[str, Any]]:
    """Turns of PointLLM as messages of a chat.

    Raises:
        MalformedError: no turns, other speakers, not in turn, nothing said, or not exactly one cloud.
    """
    if not isinstance(turns, list) or not turns:
        raise MalformedError("malformed", "`conversations` must be a list of turns")
    messages, clouds = [], 0
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str) or turn.get("from") not in ROLES:
            raise MalformedError("malformed", f"turn {number} must hold `from` (human or gpt) and a text `value`")
        role = ROLES[turn["from"]]
        if role != ("user", "assistant")[number % 2]:
            raise MalformedError("order", f"turn {number} is by {turn['from']}: human and gpt must take turns")
        pieces = turn["value"].split(POINT)
        content: list[dict[str, str | None]] = []
        for place, piece in enumerate(pieces):
            content += [{"type": "point_cloud", "text": None}] if place else []
            content += [{"type": "text", "text": piece.strip()}] if piece.strip() else []
        if not any(part["type"] == "text" for part in content):
            raise MalformedError("empty", f"turn {number} says nothing")
        clouds += len(pieces) - 1
        if len(pieces) > 1 and role == "assistant":
            raise MalformedError("cloud", f"turn {number} of gpt holds {POINT}")
        messages.append({"role": role, "content": content})
    if len(messages) % 2:
        raise MalformedError("order", "the last turn must be by gpt")
    if clouds != 1:
        raise MalformedError("cloud", f"a conversation needs {POINT} once, here it is {clouds} times")
    return messages


def read_conversations(
    entries: Sequence[Any], shapes: NamedShapes, types: Sequence[str] | None = None
) -> tuple[list[dict[str, Any]], list[Error]]:
    """Rows of the config `conversations`, of these types only unless None, and errors."""
    rows, errors = [], []
    for number, entry in enumerate(tqdm(entries, desc="conversations", unit="entry"), 1):
        name = str(entry.get("object_id", "")) if isinstance(entry, dict) else ""
        try:
            if not name:
                raise MalformedError("malformed", "an entry must be an object with `object_id`")
            kind = str(entry.get("conversation_type", DEFAULT_TYPE))
            if types is not None and kind not in types:
                continue
            messages = read_messages(entry.get("conversations"))
            rows.append({"id": shapes.find(name), "type": kind, "messages": messages})
        except MalformedError as problem:
            errors.append(error(number, name, *problem.args))
        except LookupError as problem:
            errors.append(error(number, name, "no_shape", str(problem.args[0])))
    return rows, errors


def read_entries(path: Path) -> list[Any]:
    """The list of conversations in a file."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        raise PairsError(f"{path} is no JSON: {problem}") from problem
    if not isinstance(entries, list):
        raise PairsError(f"{path} must hold a list of conversations, not a {type(entries).__name__}")
    return entries


def main(arguments: list[str] | None = None) -> None:
    parser = reader_parser(__doc__, "--json", "list of conversations")
    parser.add_argument("--types", nargs="+", help="conversation types to keep, such as detailed_description [all]")
    args = parser.parse_args(arguments)
    try:
        kept, lost = convert_texts(
            args,
            args.json,
            CONVERSATIONS_CONFIG,
            TEXT,
            lambda shapes: read_conversations(read_entries(args.json), shapes, args.types),
        )
    except (PairsError, OSError) as problem:
        sys.exit(f"pointllm: {problem}")
    print(f"{kept} conversations in {args.output}; {lost} entries or clouds could not be used")


if __name__ == "__main__":
    run_main(main)
