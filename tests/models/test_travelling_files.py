"""The files of `models/` travel with every checkpoint: they stand alone beside torch, transformers and numpy."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import modeling_ulip2

PACKAGE = Path(modeling_ulip2.__file__).parent / "models"
FILES = sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")
assert FILES
# huggingface_hub is what transformers itself stands on
ALLOWED = {"torch", "transformers", "numpy", "huggingface_hub"} | set(sys.stdlib_module_names)


def imports_outside_try(tree: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    found: list[ast.Import | ast.ImportFrom] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        elif not isinstance(node, ast.Try):
            found.extend(imports_outside_try(node))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_imports(path: Path) -> None:
    for node in imports_outside_try(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1 and node.module, f"line {node.lineno}: only `from .x import y`"
            assert (PACKAGE / f"{node.module}.py") in FILES, f"line {node.lineno}: {node.module} does not travel"
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in names:
            assert name.split(".")[0] in ALLOWED, f"line {node.lineno}: {name} may be missing where a checkpoint goes"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_relative_import_in_text(path: Path) -> None:
    """transformers finds the files to copy by a regular expression that also matches docstrings."""
    by_pattern = set(re.findall(r"^\s*(?:import\s+|from\s+)\.(\S+)", path.read_text(), flags=re.MULTILINE))
    tree = ast.parse(path.read_text())
    by_syntax = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1}
    assert by_pattern == by_syntax


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_cycle(path: Path) -> None:
    """Remote code is loaded file by file: a cycle would not import."""

    def needs(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"{' -> '.join([*above, name])}"
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                needs(node.module, (*above, name))

    needs(path.stem, ())


# What `private_apis.py` is for.
PRIVATE = re.compile(
    r"from transformers\S* import .*\b_\w+|_from_config|_attn_implementation|get_expanded_tied|_upload_modified_files"
    r"|_get_arguments_from_pretrained|_raise_exceptions_for|_LazyAutoMapping"
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_private_names_of_transformers_stand_in_one_file(path: Path) -> None:
    found = PRIVATE.findall(path.read_text())
    assert bool(found) == (path.name == "private_apis.py"), found
