"""`ulip2 pretrain`: a point encoder aligned with an image-text model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from modeling_ulip2.utils.scripts import DONE

from .shared import add_recipe, recipe_words


def register(commands: Any) -> str:
    return add_recipe(
        commands, "pretrain", run, "align a point encoder with an image-text model", _options, trains=True
    )


def _options() -> tuple[Sequence[Any], str]:
    from modeling_ulip2.recipes.pretraining_options import DESCRIPTION, OPTIONS

    return OPTIONS, DESCRIPTION


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2.recipes.pretraining import main

    main(recipe_words(options), "ulip2 pretrain")
    return DONE
