"""The documentation site: its pages that are made by code, and the whole of it, built strictly."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.program_parsers import ROOT, NoParserError, command_of, command_parser, commands, help_text, program_parser
from modeling_ulip2.conversion.catalog import CATALOG, find_named

hooks = pytest.importorskip("docs.site_hooks", reason="the extra docs is not installed")


def test_every_command_has_its_help_on_the_page() -> None:
    page = hooks.commands_page()
    for command in commands():
        assert f"# ulip2 {' '.join(command)}\n" in page
    assert "--up-axis" in page and str(Path.home()) not in page
    assert command_of(["embed", "shapes"]) == ["embed"] and command_of(["--version"]) == []
    with pytest.raises(NoParserError, match="no command imagine"):
        command_parser("imagine")
    with pytest.raises(NoParserError, match="prints no help"):
        program_parser("docs/program_parsers.py")


def test_help_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = command_parser("search")
    monkeypatch.setenv("COLUMNS", "40")
    narrow = help_text(parser)
    monkeypatch.setenv("COLUMNS", "200")
    assert narrow == help_text(parser)


def test_links_lead_to_pages() -> None:
    text = "[a](../../dataset_scripts/README.md#views) [b](search.ipynb) [c](https://x.org) [d](../../examples/x.py)"
    made = hooks.linked(text, "docs/tutorials/build.md", "tutorials/build.md")
    assert made == "[a](../making_triplets.md#views) [b](search.md) [c](https://x.org) d"
    pictures: set[str] = set()
    made = hooks.linked("![p](pictures/x.png) [q](../README.md)", "examples/README.md", "examples.md", pictures)
    assert made == "![p](examples/pictures/x.png) q" and pictures == {"examples/pictures/x.png"}


def test_a_notebook_becomes_a_page(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n"]},
        {"cell_type": "code", "source": ["1 + 1"], "outputs": [{"data": {"text/plain": ["2"]}}]},
        {"cell_type": "code", "source": ["!ulip2 --version"], "outputs": [{"name": "stderr", "text": ["noise"]}]},
        {"cell_type": "code", "source": ["draw()"], "outputs": [{"data": {"image/png": "QUJD"}}]},
    ]
    (tmp_path / "x.ipynb").write_text(json.dumps({"cells": cells}))
    page = hooks.notebook_page(tmp_path / "x.ipynb")
    assert '```python\n1 + 1\n```\n\n```text title="Output"\n2\n```' in page
    assert "```bash\nulip2 --version\n```" in page and "noise" not in page and "base64,QUJD" in page


def test_published_figures_are_those_of_the_package() -> None:
    assert (
        "| ULIP-2, Point-BERT | Objaverse + ShapeNet | 84.7 / 97.1 | 50.6 / 79.1 |  | [2] |"
        in hooks.published_zero_shot()
    )
    assert "| ULIP-2, PointNeXt-S, with voting | 91.5 | 90.9 | [1] |" in hooks.published_fine_tuned()


def test_the_readme_is_short_and_names_checkpoints_that_there_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    table = text.split("## Checkpoints")[1].split("\n## ")[0]
    assert f"all {len(CATALOG)}" in table
    for first, others in re.findall(r"^\| `([\w-]+)`((?:, `-[\w-]+`)*) \|", table, flags=re.MULTILINE):
        find_named(first)
        for ending in re.findall(r"`(-[\w-]+)`", others):
            assert any(entry.name.startswith(first[:5]) and entry.name.endswith(ending) for entry in CATALOG), ending
    assert hooks.releases().count("\n") > len(CATALOG)


def test_the_layout_names_every_folder() -> None:
    text = (ROOT / "docs" / "concepts" / "layout.md").read_text(encoding="utf-8")
    folders = [path.parent.name for path in (ROOT / "modeling_ulip2").glob("*/__init__.py")]
    missing = [name for name in folders if f"  {name}/" not in text]
    assert folders and not missing, f"docs/concepts/layout.md does not say what {missing} are"


@pytest.mark.slow
def test_the_site_is_built_strictly_and_needs_no_server(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    assert {"index.html", "reference/commands.html", "tutorials/search.html", "making_triplets.html"} <= set(pages)
    assert "get_point_features" in pages["reference/api/models.html"]
    for name, page in pages.items():
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(https?:[^\s\">]+)", page)
        assert not loaded, f"{name} loads {loaded}"
