"""Scans of furnished homes: nine from the Debian package `sweethome3d`, or any that Sweet Home 3D saved.

    python dataset_scripts/sweet_home_3d_homes.py --output data/homes
    python dataset_scripts/sweet_home_3d_homes.py --output data/mine --homes FOLDER

Each home becomes a mesh of walls, floors, ceilings and furniture, and each mesh a row of two configs of a dataset:
`complete`, points of all its surfaces, and `walk`, what a depth camera sees that is carried through its rooms. Points
have colors, normals and the object that they lie on. A second run completes what is missing. The homes and the models
that they place are by Véronique and Emmanuel Puybaret (eTeks): CC BY 3.0 or GPL 2 and later. It needs the extra
scenes: pip install "modeling-ulip2[scenes]".
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import argparse
import json
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from modeling_ulip2.building.sources.debian import (
    PackageError,
    add_package_arguments,
    copy_member,
    find_package,
    open_package,
    safe_member_path,
)
from modeling_ulip2.data.schema import error_features
from modeling_ulip2.data.shards import ERRORS, OutputError, shard_path
from modeling_ulip2.scenes.dataset import write_card, write_scenes
from modeling_ulip2.scenes.reading import DENSITY
from modeling_ulip2.scenes.scanning import SceneMesh, Walk, scan_complete, scan_walk
from modeling_ulip2.scenes.schema import Scene
from modeling_ulip2.scenes.sources.sweet_home import HomeError, build_home, read_home
from modeling_ulip2.scenes.sources.sweet_home.archive import Contents
from modeling_ulip2.scenes.sources.sweet_home.file import read_home_file
from modeling_ulip2.utils.checksums import sha256_of
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.parquet import is_parquet, write_parquet
from modeling_ulip2.utils.scripts import run_main, status

PACKAGE = "sweethome3d"
VERSION = "7.0.2+dfsg-3"
SHA256 = "54bce4394ae763da1ffccff8f025565ce7161dc6934371e07480034ef155c411"
JAR = "usr/share/sweethome3d/sweethome3d.jar"
EXAMPLES = "com/eteks/sweethome3d/io/resources/examples/"
SOURCE_NAME = "sweet_home_3d_homes"
LIMITS = (
    "Homes are drawn, not measured: surfaces have one color or texture, without light and shade, wear or clutter.",
    "Categories are words for the names in the catalog; plain boxes that nobody named are `other`.",
)
SETTINGS_FILE = "scans.json"
SCANS = ("complete", "walk")
SOURCE = """\
Example homes of [Sweet Home 3D](https://www.sweethome3d.com), from Debian's package `{package}` (file `{file}`),
with the furniture of its catalog. Copyright Véronique and Emmanuel Puybaret (eTeks), at your choice under CC BY 3.0
Unported or the GNU General Public License.
"""
OWN_SOURCE = "Homes made with [Sweet Home 3D](https://www.sweethome3d.com), from a folder of `.sh3d` files."


@dataclass(frozen=True)
class Source:
    """A home that is to be scanned: its id, and the file or the member of the package's jar that holds it."""

    id: str
    path: Path | None = None
    member: str = ""


@contextmanager
def open_jar(package: Path, *, any_version: bool) -> Iterator[zipfile.ZipFile]:
    """The program's archive in a package, verified.

    Raises:
        PackageError: it is another package, or damaged.
    """
    if not any_version and sha256_of(package) != SHA256:
        raise PackageError(
            f"{package} is not {PACKAGE} {VERSION}: its SHA-256 is another. If you accept that homes may differ, add "
            "--any-version."
        )
    with tempfile.TemporaryDirectory(prefix="sweethome3d-") as folder:
        copy = Path(folder) / "sweethome3d.jar"
        with open_package(package) as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.isfile() and safe_member_path(name or ".").as_posix() == JAR:
                    copy_member(archive, member, copy)
        if not copy.is_file():
            raise PackageError(f"{package} lacks {JAR}: it is no package of {PACKAGE}")
        with zipfile.ZipFile(copy) as jar:
            yield jar


def list_homes(folder: Path) -> list[Source]:
    """The `.sh3d` files below a folder, called by their paths.

    Raises:
        HomeError: there is none.
    """
    if not folder.is_dir():
        raise HomeError(f"{folder} is not a folder (--homes)")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".sh3d" and path.is_file())
    if not paths:
        raise HomeError(f"{folder} holds no .sh3d file (--homes)")
    return [Source(path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths]


def list_examples(jar: zipfile.ZipFile) -> list[Source]:
    members = sorted(name for name in jar.namelist() if name.startswith(EXAMPLES) and name.endswith(".xml"))
    if not members:
        raise PackageError("the package has no example homes")
    return [Source(PurePosixPath(member).stem, member=member) for member in members]


def build(source: Source, jar: zipfile.ZipFile | None) -> SceneMesh:
    """The mesh of a home.

    Raises:
        HomeError: it cannot be read.
    """
    if source.path is not None:
        mesh = read_home_file(source.path, source.id, jar)
    else:
        assert jar is not None, "examples lie in the package"
        mesh = build_home(read_home(jar.read(source.member), source.id), Contents(None, jar), source.id)
    return replace(mesh, source=SOURCE_NAME)


def scan(mesh: SceneMesh, kind: str, args: argparse.Namespace) -> Scene:
    # a home's points do not depend on which other homes there are
    seed = args.seed + zlib.crc32(mesh.id.encode())
    if kind == "complete":
        return scan_complete(mesh, args.density, seed)
    return scan_walk(mesh, walk_of(args), seed)


def walk_of(args: argparse.Namespace) -> Walk:
    return replace(Walk(), spacing=args.spacing, max_range=args.range, voxel=args.voxel)


def settings_of(args: argparse.Namespace, sources: list[Source]) -> dict[str, Any]:
    """What the rows depend on."""
    homes = [[source.id, source.member or sha256_of(source.path)] for source in sources]  # type: ignore[arg-type]
    settings = {"density": args.density, "seed": args.seed, "walk": asdict(walk_of(args)), "homes": homes}
    return json.loads(json.dumps(settings))


def claim(output: Path, settings: dict[str, Any]) -> None:
    """Checks that a folder is empty or was begun with the same settings, and writes them there.

    Raises:
        OutputError: it holds something else.
    """
    output.mkdir(parents=True, exist_ok=True)
    manifest = output / SETTINGS_FILE
    if manifest.is_file():
        try:
            before = json.loads(manifest.read_text("utf-8"))
        except ValueError:
            raise OutputError(f"{manifest} is damaged; choose another output folder") from None
        if before != settings:
            changed = [name for name in settings if not isinstance(before, dict) or before.get(name) != settings[name]]
            raise OutputError(
                f"{output} was begun with other settings ({', '.join(changed)}); use the same ones to complete it, or "
                "another folder"
            )
    elif others := sorted(path.name for path in output.iterdir() if not path.name.startswith(".")):
        raise OutputError(f"{output} holds {others[0]!r} but no {SETTINGS_FILE}; choose an empty folder as output")
    write_text(manifest, json.dumps(settings, indent=1) + "\n")


def scan_all(args: argparse.Namespace, sources: list[Source], jar: zipfile.ZipFile | None) -> list[dict[str, Any]]:
    """Writes the scans that are missing; rows of `errors.parquet` for homes that could not be read."""
    errors = []
    for number, source in enumerate(tqdm(sources, desc="Scanning", unit="home")):
        paths = {kind: shard_path(args.output, kind, number, len(sources)) for kind in args.scans}
        missing = [kind for kind, path in paths.items() if not is_parquet(path)]
        if not missing:
            continue
        try:
            mesh = build(source, jar)
        except Exception as error:  # homes come from strangers, and one must not cost the others
            kind = "" if isinstance(error, HomeError) else f"{type(error).__name__}: "
            failed = {"unreadable": f"{kind}{error}"}
        else:
            failed = {}
            for kind in missing:
                try:
                    write_scenes(paths[kind], [scan(mesh, kind, args)])
                except ValueError as error:  # too large, or nowhere to stand
                    failed[f"no_{kind}_scan"] = str(error)
        for reason, message in failed.items():
            errors.append({"id": source.id, "reason": reason, "message": message, "shard": number})
            tqdm.write(f"{source.id}: {message}", file=sys.stderr)
    return errors


def describe(args: argparse.Namespace) -> dict[str, str]:
    walk = walk_of(args)
    return {
        "complete": f"points of all surfaces, seen or not, {args.density:g} per square meter.",
        "walk": (
            f"what a depth camera sees at {walk.eye_height:g} m that turns around at places {walk.spacing:g} m apart: "
            f"up to {walk.max_range:g} m, with noise that grows with depth, one point for each cube of "
            f"{walk.voxel * 100:g} cm. Furniture is seen from one side and partly hidden."
        ),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--homes", type=Path, help="folder of .sh3d files, instead of the package's homes")
    parser.add_argument("--scans", nargs="+", choices=SCANS, default=list(SCANS), help="configs to make [both]")
    parser.add_argument("--density", type=float, default=DENSITY, help="complete: points per m² [%(default)s]")
    parser.add_argument("--spacing", type=float, default=Walk.spacing, help="walk: m between places [%(default)s]")
    parser.add_argument(
        "--range", type=float, default=Walk.max_range, help="walk: m that the camera sees [%(default)s]"
    )
    parser.add_argument("--voxel", type=float, default=Walk.voxel, help="walk: m between points [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of points, places and noise [%(default)s]")
    add_package_arguments(parser, PACKAGE, VERSION)
    args = parser.parse_args(arguments)
    walk_of(args)  # refuses settings that cannot be
    try:
        with ExitStack() as stack:
            jar = None
            told = OWN_SOURCE
            if args.homes is None:
                package = find_package(PACKAGE, args.package, "17 MB")
                jar = stack.enter_context(open_jar(package, any_version=args.any_version))
                told = SOURCE.format(package=PACKAGE, file=package.name)
            sources = list_examples(jar) if jar is not None else list_homes(args.homes)
            claim(args.output, settings_of(args, sources))
            errors = scan_all(args, sources, jar)
        write_parquet(args.output / ERRORS, errors, error_features())
        unreadable = sum(error["reason"] == "unreadable" for error in errors)
        if unreadable < len(sources):
            write_card(args.output, args.output.resolve().name, describe(args), told, unreadable, LIMITS)
    except (PackageError, zipfile.BadZipFile, OSError) as error:
        sys.exit(f"sweet_home_3d_homes: {error}")
    failed = len({error["id"] for error in errors})
    print(f"{len(sources) - failed} of {len(sources)} homes in {args.output}")
    return status(failed, len(sources))


if __name__ == "__main__":
    run_main(main)
