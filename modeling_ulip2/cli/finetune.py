"""`ulip2 finetune`: a classifier or a captioner made of a pre-trained encoder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from modeling_ulip2.utils.scripts import DONE

from .shared import add_recipe, add_tasks, recipe_words


def register(commands: Any) -> str:
    return add_tasks(
        commands,
        "finetune",
        "make a classifier or a captioner of a pre-trained encoder",
        _tasks,
        default="classification",
    )


def _tasks(tasks: Any) -> None:
    add_recipe(tasks, "classification", classification, "fine-tune or probe a classifier", _classification, True)
    add_recipe(tasks, "captioning", captioning, "teach a language model to describe shapes", _captioning, True)


def _classification() -> tuple[Sequence[Any], str]:
    from modeling_ulip2.recipes.finetuning_options import DESCRIPTION, OPTIONS

    return OPTIONS, DESCRIPTION


def _captioning() -> tuple[Sequence[Any], str]:
    from modeling_ulip2.recipes.captioner_training_options import DESCRIPTION, OPTIONS

    return OPTIONS, DESCRIPTION


def classification(options: argparse.Namespace) -> int:
    from modeling_ulip2.recipes.finetuning import main

    main(recipe_words(options), "ulip2 finetune classification")
    return DONE


def captioning(options: argparse.Namespace) -> int:
    from modeling_ulip2.recipes.captioner_training import main

    main(recipe_words(options), "ulip2 finetune captioning")
    return DONE
