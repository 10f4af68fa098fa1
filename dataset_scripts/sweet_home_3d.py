"""Sweet Home 3D's furniture: 820 textured objects from the Debian package `sweethome3d-furniture`, with their names.

    python dataset_scripts/sweet_home_3d.py --output data/sweet_home_3d

The folder then holds the OBJ files with their materials and textures, and `objects.csv` with a row for each object.
A second run completes what is missing. Models by Scopia, Kator Legaz, Reallusion and the authors of Blend Swap:
CC BY 3.0, those of BlendSwap-CC-0 in the public domain (CC0); each row names its creator and license.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import argparse
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import javaproperties
from tqdm import tqdm

from modeling_ulip2.building.sources.debian import (
    PackageError,
    add_package_arguments,
    copy_member,
    find_package,
    open_package,
    safe_member_path,
)
from modeling_ulip2.building.sources.table import write_source
from modeling_ulip2.utils.checksums import sha256_of
from modeling_ulip2.utils.files import whole_path
from modeling_ulip2.utils.scripts import run_main

PACKAGE = "sweethome3d-furniture"
VERSION = "1.8-1"
SHA256 = "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668"
LIBRARY_FOLDER = "usr/share/sweethome3d/furniture"
CATALOG = "PluginFurnitureCatalog.properties"
MAX_UNPACKED_BYTES = 4 << 30


@dataclass(frozen=True)
class Library:
    """One `.sh3f` file of the package: what rows call it, its license as the hub spells it, and its checksum."""

    source: str
    license: str
    sha256: str


# Debian's copyright file says CC BY 3.0 US for Kator Legaz and Reallusion, CC BY 3.0 Unported for the other two.
LIBRARIES = {
    "BlendSwap-CC-0": Library(
        "sh3d_blendswap_cc0", "cc0-1.0", "7ef093fe70cedbb160bdb532d86a84580459635e34130c16777f549eba1993dc"
    ),
    "BlendSwap-CC-BY": Library(
        "sh3d_blendswap_ccby", "cc-by-3.0", "29ae78937b4d5dbe93db74067817a984fa411f017b007fd666bc40368bdb0c83"
    ),
    "KatorLegaz": Library(
        "sh3d_katorlegaz_ccby", "cc-by-3.0", "f512443b5d3a6903497573095f971f44334b3165ab32182133051fa9487764a6"
    ),
    "Reallusion": Library(
        "sh3d_reallusion_ccby", "cc-by-3.0", "dd553207876ccec6372dde7aaea6b2dcf2d631997fcdb8a9856a639e0db9aa9b"
    ),
    "Scopia": Library(
        "sh3d_scopia_ccby", "cc-by-3.0", "b4505451b1e8ab339c101c0afddfef4e1a07b95aa8c821c61ec41487afd43850"
    ),
}
# Tags that say where a model came from instead of what it is.
PROVENANCE_TAGS = {"Blend Swap", "SCPTS"}
SOURCE = f"""\
Furniture of [Sweet Home 3D](https://www.sweethome3d.com), from Debian's package `{PACKAGE}` (file `{{file}}`): OBJ
files with materials and textures, converted by Emmanuel Puybaret (eTeks) from models by

- Scopia Visual Interfaces Systems: CC BY 3.0
- Andrew Kator and Jennifer Legaz: CC BY 3.0 US
- Reallusion: CC BY 3.0 US
- authors of [Blend Swap](https://www.blendswap.com), each named as creator: CC BY 3.0 or CC0

Names, tags and categories are the catalog's; tags that name a source ({", ".join(sorted(PROVENANCE_TAGS))}) are left
out. Where the catalog gives a rotation, it is applied, so that the model stands upright with its front to +z.
"""


def read_catalog(library: str, properties: dict[str, str]) -> list[dict[str, str]]:
    """The rows of `objects.csv` for one library, in the catalog's order.

    `category` and `group` are both the catalog's category ("Living room"). `rotation` is its `modelRotation`: nine
    numbers of a row-major matrix that stands the model upright with its front to +z; "" where it needs none.
    """
    numbers = sorted(int(key.partition("#")[2]) for key in properties if re.fullmatch(r"model#\d+", key))
    rows = []
    for number in numbers:
        entry = {
            key.partition("#")[0]: value.strip() for key, value in properties.items() if key.endswith(f"#{number}")
        }
        path = safe_member_path(f"{library}/{entry['model'].lstrip('/')}").as_posix()
        tags = [tag.strip() for tag in entry.get("tags", "").split(",")]
        category = entry.get("category", "")
        rows.append(
            {
                "path": path,
                "id": path,
                "name": " ".join(entry.get("name", "").split()),
                "tags": ", ".join(tag for tag in tags if tag and tag not in PROVENANCE_TAGS),
                "category": category,
                "group": category,
                "creator": entry.get("creator", ""),
                "license": LIBRARIES[library].license,
                "source": LIBRARIES[library].source,
                "rotation": entry.get("modelRotation", ""),
            }
        )
    return rows


def read_libraries(package: Path, scratch: Path, *, any_version: bool) -> Iterator[tuple[str, zipfile.ZipFile]]:
    """The package's verified libraries by name, each copied to `scratch`, for a zip file cannot be read as a stream.

    A package of another checksum may be a distribution's own build of the same furniture: then the libraries' own
    checksums decide.
    """
    known = any_version or sha256_of(package) == SHA256
    with open_package(package) as archive:
        for member in archive:
            path = safe_member_path(member.name.removeprefix("./") or ".") if member.isfile() else None
            if path is None or path.parent.as_posix() != LIBRARY_FOLDER or path.stem not in LIBRARIES:
                continue
            copy = scratch / path.name
            copy_member(archive, member, copy)
            if not known and sha256_of(copy) != LIBRARIES[path.stem].sha256:
                raise PackageError(
                    f"{package} is not {PACKAGE} {VERSION}: neither its SHA-256 nor that of its {path.name} is the "
                    "expected one. If you accept that objects may differ, add --any-version."
                )
            with zipfile.ZipFile(copy) as library:
                yield path.stem, library
            copy.unlink()


def unpack_library(name: str, library: zipfile.ZipFile, output: Path) -> list[dict[str, str]]:
    """Write a library's models below `output/name`, except files already there; the rows of its objects."""
    rows = read_catalog(name, javaproperties.loads(library.read(CATALOG)))
    folders = {os.path.dirname(row["path"]) for row in rows}
    members = {}
    for info in library.infolist():
        path = safe_member_path(f"{name}/{info.filename}")
        # Models, materials, textures and the authors' notes lie in the model's folder; icons and translations do not.
        if not info.is_dir() and (any(p.as_posix() in folders for p in path.parents) or path.name == "LICENSE.TXT"):
            members[path.as_posix()] = info
    if missing := [row["path"] for row in rows if row["path"] not in members]:
        raise PackageError(f"{name}: the catalog names {missing[0]}, which the library lacks")
    if sum(info.file_size for info in members.values()) > MAX_UNPACKED_BYTES:
        raise PackageError(f"{name}: unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB, refused")
    for path, info in tqdm(members.items(), desc=f"Unpacking {name}", unit="file", leave=False):
        target = output / path
        if target.is_file() and target.stat().st_size == info.file_size:
            continue
        with whole_path(target) as partial:
            partial.write_bytes(library.read(info))  # zipfile checks the CRC
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the meshes and objects.csv")
    add_package_arguments(parser, PACKAGE, VERSION)
    args = parser.parse_args(arguments)
    try:
        args.output.mkdir(parents=True, exist_ok=True)
        package = find_package(PACKAGE, args.package, "120 MB")
        rows: list[dict[str, str]] = []
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=args.output) as scratch:
            for name, library in read_libraries(package, Path(scratch), any_version=args.any_version):
                rows += unpack_library(name, library, args.output)
        if absent := LIBRARIES.keys() - {row["path"].partition("/")[0] for row in rows}:
            raise PackageError(f"{package} lacks the libraries {', '.join(sorted(absent))}")
        write_source(args.output, rows, SOURCE.format(file=package.name))
    except (PackageError, zipfile.BadZipFile, OSError) as error:
        sys.exit(f"sweet_home_3d: {error}")
    print(f"{len(rows)} objects in {args.output}")


if __name__ == "__main__":
    run_main(main)
