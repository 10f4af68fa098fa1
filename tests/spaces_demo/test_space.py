"""The Space's header and pins say what this repository was tested with."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SPACE = ROOT / "spaces_demo"


def pins(path: Path) -> dict[str, str]:
    lines = [line.split("#")[0].split(";")[0].strip() for line in path.read_text().splitlines()]
    return dict(line.split("==") for line in lines if line)


def header() -> dict[str, str]:
    match = re.match(r"---\n(.*?)\n---\n", (SPACE / "README.md").read_text(), re.DOTALL)
    assert match is not None
    return yaml.safe_load(match[1])


def test_the_header_names_the_tested_gradio():
    fields = header()
    assert fields["sdk"] == "gradio" and fields["sdk_version"] == pins(ROOT / "constraints.txt")["gradio"]
    assert (SPACE / fields["app_file"]).is_file()
    assert len(fields["short_description"]) <= 60 and isinstance(fields["python_version"], str)


def test_requirements_are_pinned_as_tested():
    tested, required = pins(ROOT / "constraints.txt"), pins(SPACE / "requirements.txt")
    assert {name: tested.get(name) for name in required} == required


def test_the_space_imports_the_package_and_itself_alone():
    """dataset_scripts and examples are not on a Space."""
    for path in SPACE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & {"dataset_scripts", "examples", "tests"}, path


def test_importing_the_app_loads_no_model(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("gradio")
    pytest.importorskip("faiss")
    import importlib

    import transformers

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was loaded at import")

    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", refuse)
    import app

    importlib.reload(app)
