"""What is published of the project: one version, the file lists of source archive and wheel, and its habits."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from modeling_ulip2.utils.publishing import texts_of

ROOT = Path(__file__).parents[1]
VERSION = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]  # type: ignore[index]
# What lies in a working copy and belongs to nobody else.
PRIVATE = (
    "outputs/quickstart/model/model.safetensors",
    "outputs/mine.json",
    "tests/test_mine.py",
    ".venv/lib/mine.py",
    "modeling_ulip2/models/__pycache__/kernels.nbi",
    "modeling_ulip2/.ipynb_checkpoints/mine.py",
    "checkpoint.pt",
)
BUILD = """
import sys
from setuptools import build_meta

out = sys.argv[1]  # building changes sys.argv
print(build_meta.build_sdist(out), build_meta.build_wheel(out))
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source archive and wheel, built of a copy of the tree with a person's files in it."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tree)
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("modeling_ulip2", "dataset_scripts", "examples", "spaces_demo"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    for name in PRIVATE:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("mine")
    done = subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def test_file_lists(distributions: Path) -> None:
    (archive,), (wheel,) = distributions.glob("*.tar.gz"), distributions.glob("*.whl")
    assert archive.name == f"modeling_ulip2-{VERSION}.tar.gz" and wheel.name.startswith(f"modeling_ulip2-{VERSION}-")
    with tarfile.open(archive) as packed:
        source = {name.partition("/")[2] for name in packed.getnames() if not packed.getmember(name).isdir()}
    with zipfile.ZipFile(wheel) as packed:
        built = set(packed.namelist())
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "modeling_ulip2").rglob("*") if _is_ours(path)}
    assert package <= built and package <= source
    others = {name for name in built if not name.startswith("modeling_ulip2/")}
    assert all(".dist-info/" in name for name in others)
    for names in (source, built):
        assert not names & set(PRIVATE)
        assert not [n for n in names if n.endswith((".pyc", ".nbi", ".nbc", ".pt")) or "outputs" in n or "mine" in n]
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "constraints.txt"} <= source
    assert sum(path.stat().st_size for path in (archive, wheel)) < 5e6


def _is_ours(path: Path) -> bool:
    """Whether git would know it: no cache and no compiled file."""
    return path.is_file() and path.suffix not in (".pyc", ".nbi", ".nbc") and "__pycache__" not in path.parts


@pytest.mark.skipif(importlib.util.find_spec("twine") is None, reason="twine is not installed (extra dev)")
def test_the_package_index_would_take_them(distributions: Path) -> None:
    files = [str(path) for path in distributions.iterdir()]
    done = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stdout, done.stdout


@pytest.mark.parametrize("folder", sorted((ROOT / "checkpoints").iterdir()), ids=lambda folder: folder.name)
def test_a_checkpoint_tells_no_path_of_the_machine_that_made_it(folder: Path) -> None:
    for path in folder.rglob("*.json"):
        if path.name != "tokenizer.json":  # pieces of text
            told = [text for _, text in texts_of(json.loads(path.read_text(encoding="utf-8"))) if os.path.isabs(text)]
            assert not told, path


def test_version_in_one_place() -> None:
    """Every other place is compared with it."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == VERSION and citation["cff-version"] == "1.2.0"
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)[1] == VERSION  # type: ignore[index]


def test_workflows_call_the_same_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    called = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "make" in step.get("run", "")
    ]
    assert {"lint", "test", "wheel"} <= {command.removeprefix("make ") for command in called}
    assert all(command.removeprefix("make ") in targets | {"docs"} for command in called)
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    assert pythons == ["3.10", "3.11", "3.12", "3.13"]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(f"Python :: {version}" in project for version in pythons)


def test_hooks_use_the_pinned_ruff() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    rev = next(repo["rev"] for repo in hooks["repos"] if "ruff" in repo["repo"])
    assert f"ruff=={rev.removeprefix('v')}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(form.read_text(encoding="utf-8"))
