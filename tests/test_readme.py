"""The README's model in three lines, typed: with the package, and where it cannot be imported."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model, Ulip2Processor
from modeling_ulip2.towers import load_tower
from tests.models.test_auto_classes import run_as_stranger
from tests.models.tiny import POINT_CONFIG
from tests.towers.world import save_conse

README = Path(__file__).parents[1] / "README.md"
FOLDER = "outputs/quickstart/model"


def snippets() -> list[str]:
    """The first two blocks of the section, each ending in an expression that becomes `shown`."""
    section = README.read_text(encoding="utf-8").split("## The model in three lines")[1].split("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)[:2]
    assert len(blocks) == 2 and "AutoProcessor" in blocks[1] and "text=[" in blocks[1]
    finished = []
    for block in blocks:
        tree = ast.parse(block)
        last = tree.body[-1]
        assert isinstance(last, ast.Expr)
        tree.body[-1] = ast.parse(f"shown = {ast.unparse(last.value)}").body[0]
        finished.append(ast.unparse(tree))
    return finished


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the quickstart leaves, small: a ConSE pair and a model that names it."""
    root = tmp_path_factory.mktemp("readme")
    outputs = root / FOLDER
    tower = load_tower(save_conse(outputs.parent / "tower"), device="cpu")
    torch.manual_seed(0)
    config = Ulip2Config(
        point_config=POINT_CONFIG, projection_dim=tower.dim, clip_name_or_path=str(outputs.parent / "tower")
    )
    Ulip2Model(config).save_pretrained(outputs)
    extractor = Ulip2FeatureExtractor(num_points=40)
    Ulip2Processor(extractor, tower.tokenizer, tower.image_processor).save_pretrained(outputs)
    return root


def test_with_the_package(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    names: dict[str, Any] = {"points": np.random.default_rng(0).random((50, 6))}
    shown = []
    for block in snippets():
        exec(compile(block, str(README), "exec"), names)
        shown.append(names["shown"])
    assert shown[0].shape == (1, 32)
    assert shown[1].shape == (1, 2)
    torch.testing.assert_close(shown[1].sum(-1), torch.ones(1))


def test_without_the_package(world: Path) -> None:
    script = "import numpy as np\npoints = np.random.default_rng(0).random((50, 6))\nresults = {}\n"
    for index, block in enumerate(snippets()):
        script += f"{block}\nresults['{index}'] = list(shown.shape)\n"
    assert run_as_stranger(world, script, [FOLDER], NUMBA_DISABLE_JIT="1") == {"0": [1, 32], "1": [1, 2]}
