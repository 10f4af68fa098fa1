"""`ulip2 evaluate`: what a model can do, each figure beside its chance level and its control."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from modeling_ulip2.recipes import evaluation_options
from modeling_ulip2.utils.scripts import DONE

from .shared import add_recipe, add_tasks, recipe_words

# The tasks: recipe, its options, summary.
TASKS: dict[str, tuple[str, Any, str]] = {
    "zero-shot": ("zero_shot", evaluation_options.ZeroShotArguments, "classify by prompts: a benchmark, or triplets"),
    "retrieval": ("retrieval", evaluation_options.RetrievalArguments, "find shapes by text and picture, and back"),
    "captioning": ("captioning", evaluation_options.CaptionMeasureArguments, "caption held-out shapes, with controls"),
    "robustness": ("robustness", evaluation_options.RobustnessArguments, "classify corrupted clouds"),
    "scenes": ("scenes", evaluation_options.ScenesArguments, "name the objects in annotated scans"),
    "leaderboard": ("leaderboard", evaluation_options.LeaderboardArguments, "all benchmarks for several models"),
}


def register(commands: Any) -> str:
    return add_tasks(
        commands, "evaluate", "measure a model: zero-shot, retrieval, captions, …", _tasks, default="zero-shot"
    )


def _tasks(tasks: Any) -> None:
    for task, (recipe, arguments, summary) in TASKS.items():
        aliases = [recipe] if recipe != task else []
        add_recipe(tasks, task, partial(run, task=task), summary, _options(recipe, arguments), aliases=aliases)


def _options(recipe: str, arguments: Any) -> Callable[[], tuple[Sequence[Any], str]]:
    return lambda: ((arguments,), evaluation_options.DESCRIPTIONS[recipe])


def run(options: argparse.Namespace, task: str) -> int:
    recipe = import_module(f"modeling_ulip2.recipes.{TASKS[task][0]}")
    command = getattr(recipe, "command", recipe.main)
    status = command(recipe_words(options), f"ulip2 evaluate {task}")
    return status if isinstance(status, int) else DONE
