"""Captions in Cap3D's layout, a CSV file of `uid,caption` without a header, become captions of shapes by id.

    python dataset_scripts/cap3d.py --csv Cap3D_automated_Objaverse_full.csv --triplets TRIPLETS --output CAPTIONS
    python dataset_scripts/cap3d.py --csv … --clouds FOLDER_OF_POINT_FILES --num-points 8192 --output CAPTIONS

A uid is found among the ids of the triplets (whole, or as their file's name) or among the files of points, which then
go into the output, too. Several lines of one uid are several captions. What cannot be used is in `errors.parquet`.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from modeling_ulip2.building.sources.pairs import Error, NamedShapes, PairsError, convert_texts, error, reader_parser
from modeling_ulip2.data.pairs import CAPTIONS_CONFIG
from modeling_ulip2.utils.scripts import run_main

TEXT = "Captions from `{file}` in Cap3D's layout (Luo et al. 2023), read by `dataset_scripts/cap3d.py`."
HEADERS = {"id", "object_id", "uid"}  # the published files have no header; others may


def read_lines(path: Path) -> Iterator[tuple[int, list[str] | None]]:
    """Lines of a CSV file with their numbers; None for one that is no CSV."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                yield reader.line_num, None
                continue
            if row:
                yield reader.line_num, row


def read_captions(path: Path, shapes: NamedShapes) -> tuple[list[dict[str, Any]], list[Error]]:
    """Rows of the config `captions`, and errors."""
    captions: dict[str, dict[str, None]] = {}
    errors = []
    for number, row in tqdm(read_lines(path), desc="captions", unit="line"):
        if row is None or len(row) < 2:
            errors.append(error(number, (row or [""])[0], "malformed", "expected uid,caption"))
            continue
        uid = row[0].strip()
        caption = " ".join(",".join(row[1:]).split())  # a comma in a caption without quotes
        if number == 1 and uid.lower() in HEADERS:
            continue
        if "\ufffd" in uid + caption:
            errors.append(error(number, uid, "encoding", "the line is not UTF-8"))
        elif not caption:
            errors.append(error(number, uid, "empty", "the caption is empty"))
        else:
            try:
                own = captions.setdefault(shapes.find(uid), {})
            except LookupError as problem:
                errors.append(error(number, uid, "no_shape", str(problem.args[0])))
                continue
            if caption in own:
                errors.append(error(number, uid, "duplicate", "the same caption was there already"))
            own[caption] = None
    return [{"id": name, "captions": list(own)} for name, own in captions.items()], errors


def main(arguments: list[str] | None = None) -> None:
    args = reader_parser(__doc__, "--csv", "lines of uid,caption").parse_args(arguments)
    try:
        kept, lost = convert_texts(
            args, args.csv, CAPTIONS_CONFIG, TEXT, lambda shapes: read_captions(args.csv, shapes)
        )
    except (PairsError, OSError) as problem:
        sys.exit(f"cap3d: {problem}")
    print(f"captions of {kept} shapes in {args.output}; {lost} lines or clouds could not be used")


if __name__ == "__main__":
    run_main(main)
