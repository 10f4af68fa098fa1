"""`import modeling_ulip2` costs nothing, and still transformers knows its classes, in any order of imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import modeling_ulip2

PACKAGE = Path(modeling_ulip2.__file__).parent
KNOWN = """
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.pipelines import PIPELINE_REGISTRY
assert {"ulip2", "ulip2_captioning", "ulip2_pointbert", "conse", "slip"} <= set(CONFIG_MAPPING._extra_content)
assert "zero-shot-point-cloud-classification" in PIPELINE_REGISTRY.get_supported_tasks()
assert "point-cloud-to-text" in PIPELINE_REGISTRY.get_supported_tasks()
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    "imports",
    [
        "import modeling_ulip2",
        "import transformers, modeling_ulip2\nfrom transformers import pipeline",
        "import modeling_ulip2\nfrom transformers import Trainer",
        "from modeling_ulip2.models.modeling_pointbert import PointBertModel",
        "from modeling_ulip2 import *",
    ],
)
def test_the_auto_classes_know_the_package(imports: str) -> None:
    done = run(imports + KNOWN)
    assert done.returncode == 0, done.stderr
    assert "already registered" not in done.stderr


@pytest.mark.parametrize("order", ["import modeling_ulip2\n{}", "{}\nimport modeling_ulip2"])
def test_a_saved_model_is_loaded(order: str, tmp_path: Path) -> None:
    config = modeling_ulip2.PointBertConfig(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, encoder_dims=8)
    modeling_ulip2.PointBertModel(config).save_pretrained(tmp_path)
    code = order.format("from transformers import AutoModel")
    done = run(f"import sys\n{code}\nprint(type(AutoModel.from_pretrained(sys.argv[1])))", str(tmp_path))
    assert "modeling_ulip2.models.modeling_pointbert.PointBertModel" in done.stdout, done.stderr


LIGHT = "info convert verify export releases embed classify caption scene index search".split()
RECIPES = ["pretrain", "finetune classification", "finetune captioning"]
RECIPES += [f"evaluate {task}" for task in ("zero-shot", "retrieval", "captioning", "robustness", "leaderboard")]
SCRIPTS = "build convert-triplets embed-triplets describe inspect split merge publish".split()


@pytest.mark.parametrize(
    ("commands", "heavy"),
    [
        (
            ["", *LIGHT, "finetune", "evaluate"],
            ["torch", "transformers", "numpy", "datasets", "pyarrow", "huggingface_hub"],
        ),
        (RECIPES, ["torch", "datasets", "pyarrow"]),
        (SCRIPTS, ["torch", "transformers", "skimage", "numba"]),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(commands: list[str], heavy: list[str]) -> None:
    code = (
        "import sys\nfrom modeling_ulip2.cli import main\n"
        f"for command in {commands}:\n"
        "    try:\n        main([*command.split(), '--help'])\n"
        "    except SystemExit as end:\n        assert not end.code, command\n"
        f"print('heavy:', [name for name in {heavy} if name in sys.modules])"
    )
    done = run(code)
    assert done.stdout.splitlines()[-1] == "heavy: []", done.stdout + done.stderr
    assert done.stdout.count("usage: ulip2") == len(commands)


def test_the_tests_know_all_commands() -> None:
    from modeling_ulip2.cli import COMMANDS, command_name

    names = [command_name(module) for modules in COMMANDS.values() for module in modules]
    assert sorted(names) == sorted({*LIGHT, *SCRIPTS, *(recipe.split()[0] for recipe in RECIPES)})


def test_every_name_is_there_for_people_and_for_type_checkers() -> None:
    for name in modeling_ulip2.__all__:
        assert getattr(modeling_ulip2, name).__name__ == name
    assert set(modeling_ulip2.__all__) <= set(dir(modeling_ulip2))
    with pytest.raises(AttributeError, match="has no attribute 'Ulip3Model'"):
        modeling_ulip2.Ulip3Model  # noqa: B018
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    typed = {alias.name: node.module for node in block.body for alias in node.names}  # type: ignore[attr-defined]
    assert typed == modeling_ulip2._HOMES and sorted(typed) == sorted(modeling_ulip2.__all__)
