"""Texts about shapes, apart from the shapes: captions by id, or conversations by id, as parquet that anyone can load.

    DIR/captions/train-00000-of-00001.parquet         id, captions [k]
    DIR/conversations/train-00000-of-00001.parquet    id, type, messages [{role, content [{type, text}]}]
    DIR/clouds/train-00000-of-00004.parquet           id, xyz, rgb: the shapes, where they are not triplets elsewhere
    DIR/errors.parquet                                what could not be used, and why
    DIR/README.md                                     names the configs

`id` is that of a triplet, or of a row in `clouds`. The content of a message is what a processor's
`apply_chat_template` takes; its part `{"type": "point_cloud"}` stands where the cloud belongs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Array2D, Features, List, Value

from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.parquet import write_parquet

from .shards import ERRORS, shard_path

CAPTIONS_CONFIG, CONVERSATIONS_CONFIG, CLOUDS_CONFIG = "captions", "conversations", "clouds"
ROWS_PER_SHARD = 100_000
CARD = """---
pretty_name: {title}
task_categories: [other]
tags: [3d, point-cloud, captioning]
configs:
{configs}---

# {title}

{text}

{counts}
"""


def caption_features() -> Features:
    """Columns of the config `captions`: the captions of one shape, best first."""
    return Features({"id": Value("string"), "captions": List(Value("string"))})


def conversation_features() -> Features:
    """Columns of the config `conversations`: one conversation about a shape, which may have several."""
    part = {"type": Value("string"), "text": Value("string")}
    message = {"role": Value("string"), "content": List(part)}
    return Features({"id": Value("string"), "type": Value("string"), "messages": List(message)})


def cloud_features(num_points: int) -> Features:
    """Columns of the config `clouds`: (num_points, 3) float32 as the source has them, but centered where float32 would
    lose their shape (`geometry.cloud.near_origin`), and uint8 sRGB."""
    return Features(
        {
            "id": Value("string"),
            "xyz": Array2D((num_points, 3), "float32"),
            "rgb": Array2D((num_points, 3), "uint8"),
        }
    )


def pair_error_features() -> Features:
    """Columns of `errors.parquet`: row of the source (counted from 1), its id, a word for the reason, a sentence."""
    return Features(
        {"row": Value("int64"), "id": Value("string"), "reason": Value("string"), "message": Value("string")}
    )


def write_pairs(
    folder: Path,
    config: str,
    rows: Sequence[Mapping[str, Any]],
    errors: Sequence[Mapping[str, Any]],
    title: str,
    text: str,
    other_configs: Iterable[str] = (),
) -> None:
    """Writes captions or conversations, the errors and the card into `folder`; the card, which makes it a dataset,
    comes last.

    Args:
        config: "captions" or "conversations".
        rows: with the columns of that config.
        errors: with the columns of `pair_error_features`.
        title, text: of the card: a heading, and Markdown about the source.
        other_configs: configs that are in the folder already.
    """
    features = {CAPTIONS_CONFIG: caption_features, CONVERSATIONS_CONFIG: conversation_features}[config]()
    num_shards = max(1, -(-len(rows) // ROWS_PER_SHARD))
    for shard in range(num_shards):
        part = list(rows[shard * ROWS_PER_SHARD : (shard + 1) * ROWS_PER_SHARD])
        write_parquet(shard_path(folder, config, shard, num_shards), part, features)
    write_parquet(folder / ERRORS, list(errors), pair_error_features())
    configs = "".join(
        f"- config_name: {name}\n  data_files: {name}/train-*.parquet\n" for name in (config, *other_configs)
    )
    shapes = len({row["id"] for row in rows})
    counts = f"{len(rows):,} rows about {shapes:,} shapes; {len(errors):,} could not be used (`{ERRORS}`)."
    write_text(folder / "README.md", CARD.format(title=title, configs=configs, text=text.strip(), counts=counts))
