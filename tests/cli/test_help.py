"""Every command explains itself, and what its file imports only when it runs is there."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from modeling_ulip2 import cli
from modeling_ulip2.cli import COMMANDS, command_name, main

MODULES = {command_name(module): module for modules in COMMANDS.values() for module in modules}
NO_COMMANDS = {"__init__", "__main__", "completion", "shared"}


def own_imports(module: ModuleType) -> list[tuple[str, str]]:
    """(module, name) of each import of the package in a file, those inside its functions as well."""
    assert module.__file__ is not None
    found = []
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        place = node.module or ""
        if node.level:
            place = ".".join([*module.__name__.split(".")[: -node.level], *filter(None, [node.module])])
        if place.split(".")[0] == "modeling_ulip2":
            found += [(place, name.name) for name in node.names]
    return found


def is_there(place: str, name: str) -> bool:
    if hasattr(import_module(place), name):
        return True
    try:
        import_module(f"{place}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def test_every_file_of_a_command_is_registered():
    assert cli.__file__ is not None
    files = {path.stem for path in Path(cli.__file__).parent.glob("*.py")} - NO_COMMANDS
    assert files == {name.replace("-", "_") for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_help(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    told = capsys.readouterr()
    assert stopped.value.code in (0, None), told.err
    assert told.out.startswith(f"usage: ulip2 {name}") and "--help" in told.out and told.err == ""


@pytest.mark.parametrize("name", MODULES)
def test_what_a_command_imports_is_there(name: str):
    imports = own_imports(MODULES[name])
    assert imports and [found for found in imports if not is_there(*found)] == []


def test_an_import_that_is_gone_is_noticed(tmp_path: Path):
    file = tmp_path / "gone.py"
    file.write_text("def run():\n    from modeling_ulip2.cli import nothing\n    from .shared import DONE, lost\n")
    module = ModuleType("modeling_ulip2.cli.gone")
    module.__file__ = str(file)
    gone = [found for found in own_imports(module) if not is_there(*found)]
    assert gone == [("modeling_ulip2.cli", "nothing"), ("modeling_ulip2.cli.shared", "lost")]
