"""What the hub makes of a card of triplets in the Croissant format is valid, and the rows can be read by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Array2D, Features, Image, List, Value, load_dataset
from huggingface_hub import DatasetCard

mlcroissant = pytest.importorskip("mlcroissant", reason="needs mlcroissant (extra `dev`)")

# How the hub's own converter names the types of columns.
TYPES = {
    "string": "sc:Text",
    "bool": "sc:Boolean",
    "float16": "cr:Float16",
    "float32": "cr:Float32",
    "float64": "cr:Float64",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "uint8": "cr:UInt8",
    "uint16": "cr:UInt16",
}


def field(config: str, name: str, feature: Any) -> dict[str, Any]:
    """A column as a Croissant field."""
    shape: list[int] = []
    while isinstance(feature, List):
        shape.append(-1)
        feature = feature.feature
    extract: dict[str, Any] = {"extract": {"column": name}}
    if isinstance(feature, Array2D):
        shape, kind = list(feature.shape), TYPES[feature.dtype]
    elif isinstance(feature, Image):
        kind = "sc:ImageObject"
        extract |= {"transform": {"jsonPath": "bytes"}} if not shape else {}
    else:
        assert isinstance(feature, Value), f"{config}/{name}: no type for {feature!r}"
        kind = TYPES[feature.dtype]
    array = {"cr:isArray": True, "cr:arrayShape": ",".join(map(str, shape))} if shape else {}
    source = {"fileSet": {"@id": f"files-{config}"}, **extract}
    return {"@type": "cr:Field", "@id": f"{config}/{name}", "name": name, "dataType": kind, "source": source, **array}


def croissant(card: DatasetCard, name: str) -> dict[str, Any]:
    """The JSON-LD that the hub makes of a card: its configs, their files and columns."""
    data = card.data.to_dict()
    configs = {entry["config_name"]: entry["data_files"] for entry in data["configs"]}
    infos = {info["config_name"]: Features._from_yaml_list(info["features"]) for info in data["dataset_info"]}
    files = [
        {
            "@type": "cr:FileSet",
            "@id": f"files-{config}",
            "containedIn": {"@id": "repo"},
            "encodingFormat": "application/x-parquet",
            "includes": paths if isinstance(paths, str) else paths[0]["path"],
        }
        for config, paths in configs.items()
    ]
    repository = {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "contentUrl": f"https://huggingface.co/datasets/{name}",
        "encodingFormat": "git+https",
        "sha256": "https://github.com/mlcommons/croissant/issues/80",
    }
    licenses = data["license"] if isinstance(data["license"], list) else [data["license"]]
    return {
        "@context": mlcroissant.Rdf().context,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name.partition("/")[2],
        "description": card.text.strip().splitlines()[0].lstrip("# "),
        "url": f"https://huggingface.co/datasets/{name}",
        "license": [f"https://choosealicense.com/licenses/{license}/" for license in licenses],
        "keywords": data["tags"],
        "distribution": [repository, *files],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": config,
                "name": config,
                "field": [field(config, column, feature) for column, feature in infos[config].items()],
            }
            for config in configs
        ],
    }


def test_the_card_of_triplets(built: Path, tmp_path: Path) -> None:
    card = DatasetCard.load(built / "README.md")
    metadata = mlcroissant.Dataset(croissant(card, "someone/boxes"), mapping={"repo": str(built)})
    issues = metadata.metadata.ctx.issues
    assert not issues.errors, issues.report()
    configs = [own.uuid for own in metadata.metadata.record_sets]
    assert {"triplets", "features"} <= set(configs)
    # `datasets` in the same process keeps pandas from the arrays of the other config
    here = load_dataset(str(built), "features", split="train")
    rows = list(metadata.records("features"))
    assert sorted(row["features/id"].decode() for row in rows) == sorted(here["id"])
    assert {name.partition("/")[2] for name in rows[0]} == set(here.column_names)
