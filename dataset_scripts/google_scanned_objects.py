"""Google Scanned Objects as Gazebo Fuel has them: a folder per object, with mesh, texture and metadata.

    python dataset_scripts/google_scanned_objects.py --scans GoogleResearch --output data/google_scanned_objects
    python dataset_scripts/build_triplets.py --meshes data/google_scanned_objects --output data/triplets

The materials name a `texture.png` that lies in another folder, where no reader looks for it. So mesh, materials and
texture are put together in `--output`, as hard links where the file system has them, and as copies elsewhere.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import argparse
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from modeling_ulip2.building.sources.table import CollectionError, write_source
from modeling_ulip2.data.objects import name_from_path
from modeling_ulip2.utils.files import whole_path
from modeling_ulip2.utils.scripts import run_main

FILES = ("meshes/model.obj", "meshes/model.mtl", "materials/textures/texture.png")
METADATA = "metadata.pbtxt"
Z_UP = "1 0 0 0 0 1 0 -1 0"  # turns z up into y up
SOURCE = """\
[Google Scanned Objects](https://arxiv.org/abs/2204.11918) (Downs et al., ICRA 2022): household objects scanned in 3D,
Copyright 2020 Google LLC, CC BY 4.0. The scans are in meters with z up; they are turned so that y is up. Names and
categories are those of each object's metadata.
"""


def list_scans(root: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Each object's folder, with its row of `objects.csv`, by name.

    Raises:
        CollectionError: there is no object.
    """
    folders = sorted(path for path in root.glob("*") if (path / FILES[0]).is_file())
    if not folders:
        raise CollectionError(f"{root} holds no <Name>/{FILES[0]}")
    for folder in folders:
        metadata = folder / METADATA
        text = metadata.read_text(encoding="utf-8", errors="replace") if metadata.is_file() else ""
        category = categories[0] if (categories := strings(text, "first")) else ""
        yield (
            folder,
            {
                "path": f"{folder.name}/model.obj",
                "id": folder.name,
                "name": name_from_path((strings(text, "name") or [folder.name])[0]),
                "tags": "" if category == "None" else category,
                "category": "" if category == "None" else category.lower(),
                "creator": "Google LLC",
                "license": "cc-by-4.0",
                "source": "google_scanned_objects",
                "rotation": Z_UP,
            },
        )


def strings(text: str, field: str) -> list[str]:
    """The strings of a field, at any depth of a message in protobuf's text format, in their order."""
    found = re.findall(rf'(?:^|[\s{{;,]){field}\s*:\s*"((?:[^"\\\n]|\\.)*)"', text)
    return [re.sub(r"\\(.)", r"\1", value).strip() for value in found]


def gather(folder: Path, target: Path) -> None:
    """Put the files of a scan into one folder; those already there are kept."""
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        source, place = folder / name, target / Path(name).name
        if source.is_file() and not (place.is_file() and place.stat().st_size == source.stat().st_size):
            place.unlink(missing_ok=True)
            try:
                os.link(source, place)
            except OSError:
                with whole_path(place) as partial:
                    shutil.copyfile(source, partial)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=Path, required=True, help="folder with a folder for each object")
    parser.add_argument("--output", type=Path, required=True, help="folder for the meshes, objects.csv and SOURCE.md")
    args = parser.parse_args(arguments)
    try:
        if args.output.resolve() == args.scans.resolve():
            raise CollectionError("--output must be another folder than --scans")
        scans = list(list_scans(args.scans))
        for folder, _ in tqdm(scans, desc="Gathering files", unit="object"):
            gather(folder, args.output / folder.name)
        write_source(args.output, [row for _, row in scans], SOURCE)
    except (CollectionError, OSError) as error:
        sys.exit(f"google_scanned_objects: {error}")
    print(f"{len(scans)} objects in {args.output}")


if __name__ == "__main__":
    run_main(main)
