"""Every code block of every document: run, or checked as far as it can be here.

Programs that need nothing run in a folder of their own that sees the repository's checkpoints and examples, one block
after another, as a reader would type them; what they print is compared with what the document says. All others are
checked: Python parses and what it imports exists, and each command has the options that the document names.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from docs.run_notebooks import run_notebook
from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2ForPointCloudClassification
from modeling_ulip2.cli import main
from tests.models.test_auto_classes import run_as_stranger
from tests.models.tiny import POINT_CONFIG

from . import commands, python_blocks
from .blocks import DATA, NEEDS, ROOT, Block, documents, markdown_blocks, read_blocks
from .outputs import agrees
from .world import QUICKSTART, build_quickstart

DOCUMENTS = documents()
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
# What a document may name by a path relative to the repository.
SEEN = ("checkpoints", "examples", "dataset_scripts", "docs", "tests", "spaces_demo")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in: what the repository holds, and what a quickstart leaves."""
    folder = tmp_path_factory.mktemp("reader")
    build_quickstart(folder)
    for name in SEEN:
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name, target_is_directory=True)
    return folder


@pytest.fixture
def in_world(world: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(world)
    yield world
    os.chdir(before)


@pytest.mark.parametrize("path", [*DOCUMENTS, *NOTEBOOKS], ids=name_of)
def test_blocks_that_are_not_run_are_right(path: Path) -> None:
    """Every block: a known language, options that exist, Python that parses, data that can be read."""
    for block in read_blocks(path):
        if block.language == "bash":
            commands.check_block(block)
        elif block.language == "python":
            python_blocks.check_block(block)
        else:
            check_data(block)


def check_data(block: Block) -> None:
    assert block.language in DATA, (
        f"{block.place}: a block of {block.language or 'no language'} is neither run nor read"
    )
    if block.language == "json":
        for line in [block.code] if block.code.lstrip().startswith(("[", "{\n")) else block.code.splitlines():
            json.loads(line)
    elif block.language == "yaml":
        assert yaml.safe_load(block.code) is not None, block.place


# What there is in every test run, and the kinds of blocks that can run.
PRESENT = {"nothing", "quickstart"}
PROGRAMS = ("bash", "python")


def runnable(path: Path) -> list[Block]:
    return [block for block in read_blocks(path) if block.needs in PRESENT and block.language in PROGRAMS]


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if runnable(path)], ids=name_of)
def test_blocks_whose_needs_are_there_run(path: Path, in_world: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in runnable(path):
        if block.language == "bash":
            commands.run_block(block, in_world)
        else:
            python_blocks.run_block(block, names)


def test_transformers_alone_does_what_the_quickstart_page_shows(world: Path) -> None:
    """The block of the page in a process that cannot import this package."""
    (block,) = (block for block in read_blocks(ROOT / "docs" / "quickstart.md") if "trust_remote_code" in block.code)
    tree = ast.parse(block.code)
    shown = [index for index, statement in enumerate(tree.body) if isinstance(statement, ast.Expr)]
    for index in shown:
        value = ast.unparse(tree.body[index])
        tree.body[index] = ast.parse(f"results[{str(index)!r}] = list({value})").body[0]
    script = f"results = {{}}\n{ast.unparse(tree)}\n"
    results = run_as_stranger(world, script, [str(QUICKSTART / "model")], NUMBA_DISABLE_JIT="1")
    assert list(results.values()) == [[1, 32], [1, 2]]


def cards(world: Path) -> list[Path]:
    """The cards that the package writes: of a model, a captioner, a classifier, triplets and an index."""
    classifier = world / "outputs" / "classifier"
    if not classifier.exists():
        config = Ulip2Config(point_config=POINT_CONFIG, num_labels=3)
        Ulip2ForPointCloudClassification(config).save_pretrained(classifier)
        Ulip2FeatureExtractor(num_points=40).save_pretrained(classifier)
        model = str(world / QUICKSTART / "model")
        assert (
            main(["index", str(world / QUICKSTART / "dataset"), str(world / "outputs/index"), "--model", model]) == 0
        )
    return [card for card in world.rglob("outputs/**/README.md") if "features" not in card.parts]


def test_cards_made_by_code_do_what_they_show(in_world: Path) -> None:
    ran = []
    for card in cards(in_world):
        text = card.read_text(encoding="utf-8").replace("chair.glb", "examples/data/shapes/chair.glb")
        text = re.sub(r'"(FOLDER|…)"', f'"{card.parent}"', text)
        names: dict[str, Any] = {"cloud": np.random.default_rng(0).random((300, 6)), "__name__": "__main__"}
        for block in markdown_blocks(text, name_of_card := card.parent.name):
            if block.language == "python":
                python_blocks.run_block(block, names)
                ran.append(name_of_card)
            elif block.language == "bash":
                commands.check_block(block)
    assert {"dataset", "classifier", "index"} <= set(ran) and ran.count("model") >= 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_a_notebook_prints_what_it_shows(
    path: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs a notebook from the top, in a copy of its place in the repository, and compares what its cells print."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("nbclient")
    for name in SEEN:
        if (ROOT / name).exists() and name != "docs":
            (tmp_path / name).symlink_to(ROOT / name, target_is_directory=True)
    (tmp_path / "outputs").symlink_to(world / "outputs", target_is_directory=True)
    folder = tmp_path / path.parent.relative_to(ROOT)
    folder.mkdir(parents=True)
    monkeypatch.setenv("PATH", os.environ["PATH"])  # back to what it was afterwards
    monkeypatch.setenv("TQDM_DISABLE", "1")
    stored = [printed(cell) for cell in nbformat.read(path, as_version=4).cells]
    book = run_notebook(path, folder)
    # the captioner of the tests is a random one; and a notebook that shows nothing has nothing to keep
    if path.name != "caption.ipynb" and any(stored):
        for index, (said, cell) in enumerate(zip(stored, book.cells, strict=True)):
            assert agrees(said, printed(cell)), f"{path.name}, cell {index}: {said!r} is {printed(cell)!r} now"


def printed(cell: Any) -> str:
    """What a cell printed and showed as text, without progress bars and warnings."""
    outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    text = "".join("".join(text) for text in texts if "<Figure" not in text)
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# --- the mechanism itself -----------------------------------------------------------------------------------------


def blocks_of(text: str) -> list[Block]:
    return list(markdown_blocks(text, "page.md"))


def test_a_marker_belongs_to_the_block_behind_it() -> None:
    found = blocks_of(
        "---\ntitle: x\n---\n<!-- needs: gpu -->\n```bash\nmake bench\n```\n\n- item\n\n  ```python\n  1\n  ```\n\n"
        '```text title="Output"\n1\n```\n'
    )
    assert [(block.language, block.needs, block.line, block.output) for block in found] == [
        ("bash", "gpu", 5, None),
        ("python", "nothing", 11, "1\n"),
    ]
    with pytest.raises(ValueError, match="cannot need 'luck'"):
        blocks_of("<!-- needs: luck -->\n```bash\nls\n```")
    with pytest.raises(ValueError, match="must follow"):
        blocks_of('```text title="Output"\n1\n```')


@pytest.mark.parametrize(
    ("said", "printed", "same"),
    [
        ("(3, 384)", "(3, 384)", True),
        ("(3, 384)", "(3, 512)", False),
        ("0.93", "0.934", True),
        ("0.93", "0.96", False),
        ("[{'score': 0.9, …}]", "[{'score': 0.87, 'label': 'chair'}]", True),
        ("1,024 points", "1024 points", True),
        ("a b", "a\n  b", True),
        ("1e-05", "0.00001", True),
        ("chair", "table", False),
    ],
)
def test_outputs_are_compared_by_the_digits_they_show(said: str, printed: str, same: bool) -> None:
    assert agrees(said, printed) is same


def test_what_a_block_promises_is_held_against_it() -> None:
    good = "import numpy as np\na = np.zeros((3, 2))  # (3, 2)\nfloat(a.sum())  # => 0.0\nprint('x')\n"
    python_blocks.run_block(Block("page.md", 1, "python", good, "nothing", "x"), {})
    for bad in ("1 + 1  # => 3", "import numpy as np\na = np.zeros((3, 2))  # (3, 4)", "f = (\n    1,  # => 1\n)"):
        with pytest.raises(AssertionError):
            python_blocks.run_block(Block("page.md", 1, "python", bad, "nothing"), {})
    with pytest.raises(AssertionError, match="prints"):
        python_blocks.run_block(Block("page.md", 1, "python", "print(1)", "nothing", "2"), {})
    with pytest.raises(AssertionError, match="has no Ulip3"):
        python_blocks.check_block(Block("page.md", 1, "python", "from modeling_ulip2 import Ulip3", "gpu"))


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("ulip2 embed shapes -o out.parquet --model M --batch_size 4 && ulip2 --version", None),
        ("ulip2 embed shapes --model M", "-o"),
        ("ulip2 embed shapes -o out.parquet --model M --batchsize 4", "no option --batchsize"),
        ("ulip2 embed shapes -o out.parquet --model M --up-axis w", "cannot be w"),
        ("ulip2 embed shapes -o out.parquet --model M --up-axis -z", None),
        ("ulip2 imagine", "no command imagine"),
        ("OMP_NUM_THREADS=1 python dataset_scripts/split_triplets.py … # a comment", None),
        ("python dataset_scripts/nothing.py", "there is no"),
        ("ulip2 pretrain --config examples/configs/nothing.yaml", "there is no examples/configs/nothing.yaml"),
        ("sbatch examples/configs/accelerate/four_by_eight_gpus.slurm --nodes 4 …", "no option --nodes"),
        ("make quickstart MESHES=folder", None),
        ("make quickstar", "knows no quickstar"),
        ("make quickstart MESH=folder", "knows no MESH"),
        ('pip install "modeling-ulip2[mesh,nothing]"', "no extra nothing"),
        ("rm -rf x", "what is rm"),
    ],
)
def test_a_command_is_held_against_its_parser(command: str, wrong: str | None) -> None:
    block = Block("page.md", 1, "bash", command, "yours")
    if wrong is None:
        commands.check_block(block)
        return
    with pytest.raises(commands.CommandError, match=wrong):
        commands.check_block(block)


def test_commands_that_run_are_compared(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a 1.00\n")
    commands.run_block(Block("page.md", 1, "bash", "cat x.txt", "nothing", "a 1.01"), tmp_path)
    with pytest.raises(commands.CommandError, match="promises"):
        commands.run_block(Block("page.md", 1, "bash", "cat x.txt", "nothing", "b"), tmp_path)
    with pytest.raises(commands.CommandError, match="ends with"):
        commands.run_block(Block("page.md", 1, "bash", "cat y.txt", "nothing"), tmp_path)
    with pytest.raises(commands.CommandError, match="has to say what it needs"):
        commands.run_block(Block("page.md", 1, "bash", "git status", "nothing"), tmp_path)


def test_every_need_is_explained() -> None:
    """CONTRIBUTING.md tells what the markers mean."""
    assert all(NEEDS.values()) and "nothing" in NEEDS
