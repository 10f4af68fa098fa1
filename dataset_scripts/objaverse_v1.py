"""Objaverse 1.0 as the `objaverse` package downloads it: names, LVIS categories, creators and licenses of its objects.

    python -c "import objaverse; objaverse.load_annotations(); objaverse.load_lvis_annotations(); \\
               objaverse.load_objects(uids=[…])"
    python dataset_scripts/objaverse_v1.py --output data/objaverse
    python dataset_scripts/build_triplets.py --meshes ~/.objaverse/hf-objaverse-v1 \\
        --objects data/objaverse/objects.csv --preset ulip-objaverse --captioner blip2 --output data/ulip-objaverse

The objects are those whose GLB file is there. What the cache lacks of the metadata stays blank in the table.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from modeling_ulip2.building.sources.table import CollectionError, read_json, write_source
from modeling_ulip2.utils.scripts import run_main

CACHE = Path("~/.objaverse/hf-objaverse-v1")
# Sketchfab's names of licenses, all of version 4.0, and the hub's.
LICENSES = {name: f"cc-{name}-4.0" for name in ("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd")}
LICENSES |= {"cc0": "cc0-1.0"}
SOURCE = """\
[Objaverse 1.0](https://objaverse.allenai.org) (Deitke et al., CVPR 2023): GLB files from Sketchfab, fetched with the
package `objaverse`. The collection as a whole is ODC-By 1.0; every object has its author's own Creative Commons
license, which its row names with the author. Names and tags are the authors', categories are those of Objaverse-LVIS,
which has 46,832 of the 798,759 objects that ULIP-2 took. Files are used as they are: y up, in their own units.
"""


def list_objaverse(cache: Path) -> Iterator[dict[str, str]]:
    """Rows of the objects that the cache holds, by folder and uid, as `objects.csv` has them.

    Raises:
        CollectionError: there is no such cache, or one of its files of metadata is damaged.
    """
    folders = sorted(folder for folder in (cache / "glbs").glob("*") if folder.is_dir())
    if not folders:
        raise CollectionError(
            f"{cache} holds no glbs/000-000/….glb: download objects with the package objaverse first"
        )
    lvis = cache / "lvis-annotations.json.gz"
    categories: defaultdict[str, list[str]] = defaultdict(list)
    for category, uids in (read_json(lvis) if lvis.is_file() else {}).items():
        for uid in uids:
            categories[uid].append(category)
    for folder in tqdm(folders, desc="Reading metadata", unit="folder"):
        path = cache / "metadata" / f"{folder.name}.json.gz"
        metadata = read_json(path) if path.is_file() else {}
        for file in sorted(folder.glob("*.glb")):
            yield describe(file, metadata.get(file.stem) or {}, categories.get(file.stem, []))


def describe(file: Path, entry: dict[str, Any], categories: list[str]) -> dict[str, str]:
    tags = [tag.get("name") for key in ("tags", "categories") for tag in entry.get(key) or [] if isinstance(tag, dict)]
    user = entry.get("user") or {}
    return {
        "path": f"glbs/{file.parent.name}/{file.name}",
        "id": file.stem,
        "name": " ".join(str(entry.get("name") or "").split()),
        "tags": ", ".join(tag.replace(",", " ") for tag in dict.fromkeys(tags) if tag),
        "category": categories[0] if categories else "",
        "group": ", ".join(categories).replace("_", " "),
        "creator": str(user.get("displayName") or user.get("username") or ""),
        "license": LICENSES.get(str(entry.get("license") or ""), ""),
        "source": "objaverse",
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=CACHE, help="the package's folder [%(default)s]")
    parser.add_argument("--output", type=Path, help="folder for objects.csv and SOURCE.md [the cache]")
    parser.add_argument("--lvis", action="store_true", help="only objects with an LVIS category")
    parser.add_argument("--licenses", nargs="+", choices=sorted(LICENSES), help="only objects with these licenses")
    args = parser.parse_args(arguments)
    cache = args.cache.expanduser()
    allowed = {LICENSES[name] for name in args.licenses or []}
    try:
        rows = list(list_objaverse(cache))
        if args.lvis:
            rows = [row for row in rows if row["category"]]
        if allowed:
            rows = [row for row in rows if row["license"] in allowed]
        write_source(args.output or cache, rows, SOURCE)
    except (CollectionError, OSError) as error:
        sys.exit(f"objaverse_v1: {error}")
    unknown = sum(not row["license"] for row in rows)
    print(f"{len(rows)} objects in {args.output or cache}; the license of {unknown} is unknown")


if __name__ == "__main__":
    run_main(main)
