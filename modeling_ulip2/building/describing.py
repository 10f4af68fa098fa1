"""A short description of each shape of a triplets dataset, from its name and main colors, as targets of captioning.

Colors are named from the stored points, by the nearest of the terms in `stages/colors.py`. The rules are ours.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from modeling_ulip2.building.captioners.labels import with_article
from modeling_ulip2.building.sources.pairs import PairsError, claim_output, error
from modeling_ulip2.data.pairs import CAPTIONS_CONFIG, write_pairs
from modeling_ulip2.utils.command_line import add_hub_arguments, hub_options, script_parser

if TYPE_CHECKING:
    from modeling_ulip2.building.stages.colors import ColorNamer

DESCRIPTION = """Describe each shape of a triplets dataset from its name and main colors, as targets of captioning.

"Table_Big 2" whose points are brown becomes "a brown big table". Triplets built without a large captioner hold prompts
for alignment ("a bad photo of the armchair, seat.") and what an ImageNet classifier takes the views for; neither is
what one would say about a shape. The output is what --texts of `ulip2 finetune captioning` reads.
"""

TEXT = """Descriptions of the shapes in the triplets dataset `{triplets}`, made by `ulip2 describe`
from each shape's name and the colors of its points. No person has read them."""

# Words that number or file a variant of an object and do not show in it.
_FILING = {"lod", "level", "mat", "transformed", "var", "variant", "version"}
# Words that file names put behind the noun: "table big".
_QUALIFIERS = set(
    "big broken closed damaged dead double empty filled golden large lit long open short small tall thick thin wide "
    "wooden".split()
)
# Words whose last letter is no plural.
_SINGULAR = re.compile(r"(ss|us|is|as|os)$|^(lens|stairs|gas)$")


def clean_name(name: str) -> str:
    """A name without what only tells variants apart, its qualifier in front: "Table_Big 2" -> "big table"."""
    words = re.sub(r"[^\w'/-]+|_+", " ", name.lower()).split()
    kept = [word for word in words if not re.search(r"\d", word) and len(word) > 1 and word not in _FILING]
    if len(kept) > 1 and kept[-1] in _QUALIFIERS:
        kept = [kept[-1], *kept[:-1]]
    return " ".join(kept)


def is_plural(name: str) -> bool:
    """Whether the noun of a name stands for several things: "trousers", "books on a shelf", not "glass"."""
    noun = re.split(r" (?:with|of|on|in|under|for|and) ", name)[0].split()[-1]
    return noun.endswith("s") and not _SINGULAR.search(noun)


def describe_shape(name: str, colors: list[str]) -> str:
    """ "armchair", ["brown", "white"] -> "a brown and white armchair"; "" where the name says nothing."""
    words = clean_name(name)
    if not words:
        return ""
    kept = [color for color in colors if color not in words.split()]
    phrase = f"{' and '.join(kept)} {words}" if kept else words
    return phrase if is_plural(words) else with_article(phrase)


def main_colors(namer: ColorNamer, rgb: np.ndarray) -> list[str]:
    """Main colors of points (N, 3) uint8."""
    return namer(rgb[:, None], np.full((len(rgb), 1), 255, dtype=np.uint8))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--triplets", metavar="DATASET", required=True, help="triplets: a folder or a hub name")
    add("--output", metavar="OUT", type=Path, required=True, help="folder to write: config captions")
    add_hub_arguments(parser, "triplets")


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    """Raises PairsError or OSError where no shape can be described, or the output cannot be written."""
    args = script_parser(DESCRIPTION, add_arguments, prog).parse_args(arguments)
    from modeling_ulip2.building.stages.colors import ColorNamer  # takes seconds, as the next
    from modeling_ulip2.data.reading import decode_row, read_triplets

    triplets = read_triplets(args.triplets, **hub_options(args))
    namer = ColorNamer(brighten=1.0)  # points have their surface's own color, no light falls on them
    rows, errors = [], []
    shapes = triplets.select_columns(["id", "name", "rgb"]).with_format("arrow")
    for number, table in enumerate(tqdm(shapes, desc="describing", unit="shape"), 1):
        row = decode_row(table)
        caption = describe_shape(row["name"], main_colors(namer, np.asarray(row["rgb"], dtype=np.uint8)))
        if caption:
            rows.append({"id": row["id"], "captions": [caption]})
        else:
            errors.append(error(number, row["id"], "no_name", f"the name {row['name']!r} says nothing about it"))
    if not rows:
        raise PairsError(f"not one shape of {args.triplets} has a name")
    with claim_output(args.output, {"triplets": args.triplets}) as folder:
        text = TEXT.format(triplets=Path(args.triplets).name)
        write_pairs(folder, CAPTIONS_CONFIG, rows, errors, args.output.resolve().name, text)
    print(f"{len(rows)} descriptions in {args.output}; {len(errors)} shapes have no name")
