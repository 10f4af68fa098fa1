"""ShapeNetCore v2 as it is distributed: folders of synsets and models, with the names of its taxonomy.

    python dataset_scripts/shapenet.py --shapenet ShapeNetCore.v2 --output data/shapenet
    python dataset_scripts/build_triplets.py --meshes ShapeNetCore.v2 --objects data/shapenet/objects.csv \\
        --preset ulip-shapenet --captioner blip2 --output data/ulip-shapenet

Identifiers are `<synset>-<model>`, as in the published ULIP-ShapeNet.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from modeling_ulip2.building.sources.table import CollectionError, read_json, write_source
from modeling_ulip2.data.class_names import load_synsets
from modeling_ulip2.utils.scripts import run_main

MODEL = "models/model_normalized.obj"
SOURCE = """\
[ShapeNetCore v2](https://shapenet.org) (Chang et al., 2015), used under [ShapeNet's terms](https://shapenet.org/terms):
for research and education that is not commercial. OBJ files are used as they are: y up, the front to -z, normalized
to a bounding box with a diagonal of length 1. A shape's name is the first name of its synset in ShapeNet's taxonomy,
its tags are the others; the category is the synset's name among the 55 of ShapeNetCore.
"""


def list_shapenet(root: Path) -> Iterator[dict[str, str]]:
    """Rows of all models below the folder, by synset and model, as `objects.csv` has them.

    Raises:
        CollectionError: there is no folder of a synset, or taxonomy.json is damaged.
    """
    folders = sorted(path for path in root.glob("*") if re.fullmatch(r"\d{8}", path.name) and path.is_dir())
    if not folders:
        raise CollectionError(f"{root} has no folder of a synset, such as 02691156 with <model>/{MODEL}")
    categories = load_synsets("shapenet55")
    names = read_taxonomy(root / "taxonomy.json")
    for folder in tqdm(folders, desc="Listing synsets", unit="synset"):
        own = names.get(folder.name) or [categories.get(folder.name, "")]
        for model in sorted(path for path in folder.iterdir() if (path / MODEL).is_file()):
            yield {
                "path": f"{folder.name}/{model.name}/{MODEL}",
                "id": f"{folder.name}-{model.name}",
                "name": own[0],
                "tags": ", ".join(own[1:]),
                "category": categories.get(folder.name, own[0]),
                "group": folder.name,
                "license": "other",
                "source": "shapenetcore_v2",
            }


def read_taxonomy(path: Path) -> dict[str, list[str]]:
    """The names of each synset: "airplane,aeroplane,plane" are three. Empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        return {
            str(entry["synsetId"]): [
                name.strip().replace("_", " ") for name in entry["name"].split(",") if name.strip()
            ]
            for entry in read_json(path)
        }
    except (TypeError, KeyError, AttributeError) as error:
        raise CollectionError(f"{path} is not ShapeNet's list of {{synsetId, name, …}}: {error!r}") from error


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapenet", type=Path, required=True, help="folder with the synsets' folders")
    parser.add_argument("--output", type=Path, help="folder for objects.csv and SOURCE.md [that of --shapenet]")
    args = parser.parse_args(arguments)
    try:
        rows = list(list_shapenet(args.shapenet))
        write_source(args.output or args.shapenet, rows, SOURCE)
    except (CollectionError, OSError) as error:
        sys.exit(f"shapenet: {error}")
    print(f"{len(rows)} objects in {args.output or args.shapenet}")


if __name__ == "__main__":
    run_main(main)
