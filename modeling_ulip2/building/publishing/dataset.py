"""Put triplets, scenes or a search index on the hub as a dataset, once its card tells what one must know.

A picture of samples is added to the card, and its examples name the repository. Nothing is uploaded while the build is
unfinished or the card incomplete: `--check` tells what is missing and does no more. The upload is huggingface_hub's
own: when it was stopped, the same command goes on. Log in first with `hf auth login`.
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import yaml
from filelock import FileLock, Timeout
from huggingface_hub import HfApi, RepoCard
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from modeling_ulip2.data.records import BUILD, FEATURES, OutputError, is_told, read_log, read_manifest
from modeling_ulip2.data.schema import TRIPLETS_CONFIG
from modeling_ulip2.data.shards import LOCK, is_whole
from modeling_ulip2.utils.command_line import repository, script_parser
from modeling_ulip2.utils.files import LEFTOVERS, write_text
from modeling_ulip2.utils.parquet import is_parquet
from modeling_ulip2.utils.publishing import glob_escaped

from .licenses import license_problems

if TYPE_CHECKING:
    from PIL import Image

DESCRIPTION = """Put a folder of triplets or of scenes, or a search index, on the Hugging Face Hub as a dataset.

A picture of samples is added to the card, and its examples name the repository. Nothing is uploaded while the build is
unfinished or the card incomplete: --check tells what is missing and does no more. When an upload was stopped, the same
command goes on. A search index names the model that made it: where that is a folder of this machine, --model names the
repository in which others find it. Log in first with `hf auth login`.
"""
CARD, SHEET, SAMPLES = "README.md", "samples.jpg", 24
PREVIEW, PREVIEW_SIDE = (
    "preview",
    256,
)  # a column of pictures that datasets of scenes have, and how large they are shown
# What a reader must find: how its heading may read, and the word that is looked for.
SECTIONS = {
    "where the shapes come from": ("Source", "source"),
    "licenses": ("Licenses", r"licen[cs]e"),
    "what is known to be wrong": ("Limits", "limit"),
}
MARKERS = re.compile(r"\b(?:TODO|FIXME|TBD|XXX)\b|\[More Information Needed\]")
PLACEHOLDER = 'load_dataset("…"'  # as the card's examples name a repository that is not known yet
IGNORED = [f"**/{LEFTOVERS}", LEFTOVERS]
# Beside the configs that the card names: what a reader is told, and what a build tells of itself.
PUBLISHED = [CARD, SHEET, "LICENSE*", "NOTICE*", "CITATION*", *BUILD, *FEATURES]


class IncompleteError(ValueError):
    """The dataset is not fit to be published; `problems` are sentences."""

    def __init__(self, folder: Path, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(f"{folder} cannot be published yet:\n" + "\n".join(f"  - {problem}" for problem in problems))


def publish(
    folder: Path, repo_id: str, private: bool = False, api: HfApi | None = None, model: str | None = None
) -> str:
    """Upload a folder of triplets, or of scenes, or a search index; the address of the dataset.

    Args:
        model: hub repository of the model that made the index.

    Raises:
        IncompleteError: nothing was uploaded.
        OSError: no connection, no permission, or a file cannot be written.
    """
    if problems := problems_of(folder, model):
        raise IncompleteError(folder, problems)
    index = is_index(folder)
    if not index:
        complete_card(folder, repo_id)
    api = api or HfApi()
    address = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    if index:
        from .index import upload_index

        upload_index(folder, repo_id, model, api)
        return str(address)
    # huggingface_hub 2 does in `upload_folder` what its version 1 has a second method for: many commits, resumable
    upload = getattr(api, "upload_large_folder", None) or api.upload_folder
    allowed = published_patterns(folder)
    upload(
        repo_id=repo_id,
        folder_path=folder,
        repo_type="dataset",
        allow_patterns=allowed,
        ignore_patterns=IGNORED,
    )
    return str(address)


def is_index(folder: Path) -> bool:
    """Whether it is a search index, as `ulip2 index` leaves it."""
    from modeling_ulip2.search.schema import INFO_FILE

    return (folder / INFO_FILE).is_file()


def problems_of(folder: Path, model: str | None = None) -> list[str]:
    """All that speaks against publishing a folder, whatever it holds, in sentences."""
    if is_index(folder):
        from .index import index_problems  # takes seconds

        return index_problems(folder, model)
    wrong = [] if model is None else ["--model belongs to a search index, and it is none"]
    return [*wrong, *build_problems(folder), *card_problems(folder)]


def published_patterns(folder: Path) -> list[str]:
    """Which files belong to the dataset: those that its card shows, and the parquet files of its configs."""
    card = RepoCard.load(folder / CARD)
    configs = [entry["config_name"] for entry in card.data.to_dict().get("configs") or []]
    shown = [target for target in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", card.text) if "://" not in target]
    return [*PUBLISHED, *(f"{glob_escaped(name)}/*.parquet" for name in configs), *map(glob_escaped, shown)]


def left_out(folder: Path) -> list[str]:
    """What lies in the folder and is no part of the dataset, such as notes and logs: it stays on this machine."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    ignored = [*published_patterns(folder), *IGNORED, LOCK, ".cache/*"]
    return [name for name in files if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored)]


def build_problems(folder: Path) -> list[str]:
    """What speaks against the files: missing, damaged or still being written."""
    if not sample_files(folder):
        return [f"it holds no {TRIPLETS_CONFIG}/*.parquet"]
    problems = []
    lock = FileLock(folder / LOCK)
    try:
        with lock.acquire(timeout=0):
            (folder / LOCK).unlink(missing_ok=True)
    except Timeout:
        problems.append("a build is writing into it")
    damaged = [path.relative_to(folder).as_posix() for path in folder.glob("*/*.parquet") if not is_parquet(path)]
    if damaged:
        problems.append(f"{len(damaged)} files cannot be read, e.g. {damaged[0]}")
    for names in (BUILD, FEATURES):
        if not (folder / names.manifest).is_file():
            continue
        try:
            manifest, log = read_manifest(folder, names), read_log(folder, names)
        except OutputError as error:
            problems.append(str(error))
            continue
        count = manifest["num_shards"]
        missing = count - sum(is_whole(folder, entry.record, entry.shard, count) for entry in log)
        if missing:
            problems.append(f"{missing} of the {count} shards of {names.manifest} are missing: run the build again")
        elif not is_told(folder, names, manifest):
            problems.append(f"its card and {names.errors} tell of an earlier state: run the build again")
    return problems


def card_problems(folder: Path) -> list[str]:
    """What the card lacks, or tells otherwise than the files."""
    path = folder / CARD
    if not path.is_file():
        return [f"it has no {CARD}"]
    try:
        card = RepoCard.load(path)
    except (ValueError, yaml.YAMLError) as error:
        return [f"the YAML of {CARD} cannot be read: {str(error).splitlines()[0]}"]
    problems, data = [], card.data.to_dict()
    problems += license_problems(data)
    if marker := MARKERS.search(card.content):
        line = card.content[: marker.start()].count("\n") + 1
        problems.append(f"line {line} of the card is unfinished: {marker.group()!r}")
    headings = "\n".join(re.findall(r"^#+ .*$", card.text, re.MULTILINE)).lower()
    problems += [
        f"the card has no section on {what}: write one in {CARD}, under the heading '## {heading}'"
        for what, (heading, word) in SECTIONS.items()
        if not re.search(word, headings)
    ]
    return problems + config_problems(folder, data)


def config_problems(folder: Path, data: dict[str, Any]) -> list[str]:
    """Configs and counts of the card's YAML beside the files that are there."""
    configs = {entry.get("config_name"): entry for entry in data.get("configs") or []}
    infos = data.get("dataset_info") or []
    sizes = {
        info.get("config_name"): sum(split["num_examples"] for split in info.get("splits") or [])
        for info in (infos if isinstance(infos, list) else [infos])
    }
    problems = []
    there = sorted({path.parent.name for path in folder.glob("*/*.parquet")})
    for name in there:
        rows = sum(pq.read_metadata(path).num_rows for path in (folder / name).glob("*.parquet") if is_parquet(path))
        if name not in configs:
            problems.append(f"the card's YAML does not name the config {name!r}")
        elif name not in sizes:
            problems.append(f"the card's dataset_info does not describe the config {name!r}")
        elif sizes[name] != rows:
            problems.append(f"the card counts {sizes[name]:,} rows in {name!r}, the files hold {rows:,}")
    return problems + [
        f"the card names the config {name!r}, which has no file" for name in configs if name not in there
    ]


def sample_files(folder: Path) -> list[Path]:
    """The files of triplets in a folder; in a folder that is no build's, those of the first config with previews."""
    files = sorted((folder / TRIPLETS_CONFIG).glob("*.parquet"))
    if files or (folder / BUILD.manifest).is_file():
        return files
    previewed = [p for p in sorted(folder.glob("*/*.parquet")) if is_parquet(p) and PREVIEW in pq.read_schema(p).names]
    return [path for path in previewed if path.parent == previewed[0].parent]


def draw_previews(files: list[Path]) -> Image.Image:
    """Pictures that rows bring along, in rows of four on white."""
    from PIL import Image

    found: list[Image.Image] = []
    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(8, columns=[PREVIEW]):
            held = [value["bytes"] for value in batch.column(0).to_pylist() if value and value["bytes"]]
            found += [
                Image.open(io.BytesIO(data)).convert("RGB").resize((PREVIEW_SIDE, PREVIEW_SIDE)) for data in held
            ]
        if len(found) >= SAMPLES:
            break
    found = found[:SAMPLES]
    sheet = Image.new("RGB", (PREVIEW_SIDE * min(4, len(found)), PREVIEW_SIDE * -(-len(found) // 4)), "white")
    for number, picture in enumerate(found):
        sheet.paste(picture, (number % 4 * PREVIEW_SIDE, number // 4 * PREVIEW_SIDE))
    return sheet


def complete_card(folder: Path, repo_id: str) -> None:
    """Draw the sheet of samples, show it in the card, and name the repository in its examples."""
    from modeling_ulip2.building.inspection.sheet import draw_sheet, read_samples  # takes seconds

    files = sample_files(folder)
    triplets = files[0].parent.name == TRIPLETS_CONFIG
    shown = f"Views, clouds and best captions of {SAMPLES} shapes" if triplets else "Scenes from above"
    sheet = draw_sheet(read_samples(files, SAMPLES)) if triplets else draw_previews(files)
    sheet.save(folder / SHEET, quality=88)
    before = (folder / CARD).read_text(encoding="utf-8")
    text = before.replace(PLACEHOLDER, f'load_dataset("{repo_id}"')
    if f"]({SHEET})" not in text:
        picture = f"![{shown}]({SHEET})\n\n"
        heading = re.search(r"^## ", text, re.MULTILINE)
        at = heading.start() if heading else len(text)
        text = f"{text[:at]}## Samples\n\n{picture}{text[at:]}"
    if text != before:
        write_text(folder / CARD, text)


def push(folder: Path, repo_id: str, private: bool = False, model: str | None = None) -> None:
    """`publish` for the command line: tells where the dataset is, or ends the program with a sentence."""
    try:
        print(f"published as {publish(folder, repo_id, private, model=model)}")
        if not is_index(folder) and (stayed := left_out(folder)):
            print(f"{len(stayed)} files of {folder} are no part of the dataset and stay here, e.g. {stayed[0]}")
    except IncompleteError as error:
        sys.exit(f"{error}\nNothing was uploaded.")
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        sys.exit(f"cannot upload {folder}: {str(error).splitlines()[0]} The same command goes on where it was.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="triplets, scenes, or a search index")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--push-to-hub", type=repository, metavar="ORG/NAME", help="dataset repository, made if new")
    target.add_argument("--check", action="store_true", help="only tell what is missing")
    parser.add_argument(
        "--model",
        type=repository,
        metavar="ORG/NAME",
        help="of a search index: where others find its model",
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    args = script_parser(DESCRIPTION, add_arguments, prog).parse_args(arguments)
    if args.push_to_hub:
        push(args.folder, args.push_to_hub, args.private, args.model)
    elif problems := problems_of(args.folder, args.model):
        sys.exit(str(IncompleteError(args.folder, problems)))
    else:
        print(f"{args.folder} can be published.")
