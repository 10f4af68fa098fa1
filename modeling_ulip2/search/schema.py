"""What an index folder holds: the columns of a row, the names of its files, and its card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Array2D, Features, Image, List, Value
from huggingface_hub import DatasetCardData

from modeling_ulip2.data.card import count_table
from modeling_ulip2.utils.places import is_hub_name

FORMAT = 2
CONFIG = "shapes"
EMBEDS = "point_embeds"
INFO_FILE = "index.json"
FAISS_FILE = "index.faiss"
ERRORS_FILE = "errors.parquet"
TEXTS = ("id", "source", "name", "license", "creator", "category")


def index_features(num_points: int, dim: int) -> Features:
    """Columns of an index of shapes with `num_points` points and embeddings of size `dim`.

    - `id`, `source`, `name`, `license`, `creator`: as in the triplets; `category`: string, "" where unknown
    - `image`: one encoded view, from the front and a little from the side
    - `xyz` (num_points, 3) float16 and `rgb` (num_points, 3) uint8: as in the triplets
    - `point_embeds` [dim] float32, L2-normalized
    - `warnings` [string]: what had to be left out or guessed when the shape was read
    - `collection`: string, what `index.json` calls the dataset or folder that the shape came from
    """
    return Features(
        {
            **{name: Value("string") for name in TEXTS},
            "image": Image(),
            "xyz": Array2D((num_points, 3), "float16"),
            "rgb": Array2D((num_points, 3), "uint8"),
            EMBEDS: List(Value("float32"), length=dim),
            "warnings": List(Value("string")),
            "collection": Value("string"),
        }
    )


def index_shard_path(folder: Path, shard: int) -> Path:
    """The file of a shard. Its name has no total, since shards are added."""
    return folder / CONFIG / f"train-{shard:05d}.arrow"


def model_name(stored: str) -> str:
    """What a card calls a model: its hub name, or the name of its folder, but no path of the author's machine."""
    return stored if is_hub_name(stored) else Path(stored).name


def index_card(info: Mapping[str, Any], num_shapes: int, licenses: Counter[str]) -> str:
    """README.md of an index folder, whose YAML makes `load_dataset` read it."""
    known = sorted(name for name in licenses if name)
    metadata = DatasetCardData(
        license=known[0] if len(known) == 1 and not licenses[""] else known or None,
        tags=["3d", "point-cloud", "ulip-2", "search-index"],
        configs=[{"config_name": CONFIG, "data_files": [{"split": "train", "path": f"{CONFIG}/train-*.arrow"}]}],
    )
    table = "\n".join(count_table("license", licenses))
    return f"""---
{metadata.to_yaml()}
---

# Search index of {num_shapes:,} shapes

Point embeddings of size {info["dim"]} by `{model_name(info["model"])}`, in the space of the image-text model
`{info["tower"]}`, with a FAISS index (`{info["factory"]}`, inner product) over the column `{EMBEDS}`.

```python
from modeling_ulip2.search.index import ShapeIndex

index = ShapeIndex.open("…")
query = index.load_embedder().embed_texts("a wooden chair")[0]  # or a picture's or shape's vector, or a sum of them
[index.shapes[match.row]["name"] for match in index.search(query, 10)]
```

The folder is an ordinary dataset: `load_dataset("…", split="train")` gives the rows, and
`load_faiss_index("{EMBEDS}", "…/{FAISS_FILE}")` attaches the index.

## Licenses

Every row names the creator and the license of its shape, where the source states them.

{table}"""
