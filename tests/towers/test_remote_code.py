"""Towers where the package cannot be imported: by reference and embedded, from folders and from a hub, all inputs.

Everything is moved before it is loaded, so that no path of the machine that wrote it helps.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model, Ulip2Processor
from modeling_ulip2.towers import load_tower
from tests.models.test_auto_classes import COMMIT, as_hub_repository, run_as_stranger
from tests.models.tiny import POINT_CONFIG

KINDS = ("conse", "slip", "clip", "siglip", "siglip2", "chinese_clip")
ROUTES = ("folder, beside", "folder, embedded", "hub, inside", "hub, embedded", "other cache and revision")
OTHER_COMMIT = "fedcba9876543210fedcba9876543210fedcba98"

STRANGER = """
import numpy as np, torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

rng = np.random.default_rng(0)
clouds = rng.random((2, 50, 6))
pictures = [Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(2)]
results = {}
for name in sys.argv[2:]:
    place = json.loads(name)
    where = place.pop("name")
    model = AutoModel.from_pretrained(where, trust_remote_code=True, **place).eval()
    processor = AutoProcessor.from_pretrained(where, trust_remote_code=True, **place)
    with torch.no_grad():
        output = model(**processor(point_clouds=clouds, text=["a red chair", "lamp"], images=pictures))
        alone = model(**processor(text=["lamp"]))
    keys = ("point_embeds", "text_embeds", "image_embeds")
    results[name] = {key: output[key].tolist() for key in keys} | {
        "alone": alone.text_embeds.tolist(),
        "modules": sorted({type(part).__module__.split(".")[0] for part in (model, processor)}),
        "tower": type(model.get_clip_model()).__module__.split(".")[0],
        "package": "modeling_ulip2" in sys.modules,
    }
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Path]:
    return {kind: request.getfixturevalue(f"{kind}_folder") for kind in KINDS}


def made(kind: str, tower_folder: Path, root: Path) -> dict[str, Any]:
    """Checkpoints of one kind of tower, moved away from where they were written: by route, how they are named."""
    written = root / "written" / kind
    shutil.copytree(tower_folder, written / "tower")
    tower = load_tower(written / "tower", device="cpu")
    torch.manual_seed(0)
    config = Ulip2Config(point_config=POINT_CONFIG, projection_dim=tower.dim, clip_name_or_path=str(written / "tower"))
    model = Ulip2Model(config)
    processor = Ulip2Processor(Ulip2FeatureExtractor(num_points=40), tower.tokenizer, tower.image_processor)
    model.save_pretrained(written / "model")
    model.save_pretrained(written / "embedded", include_towers=True)
    shutil.copytree(tower_folder, written / "whole" / "tower")
    model.config.clip_name_or_path = str(written / "whole" / "tower")
    model.save_pretrained(written / "whole")
    for name in ("model", "embedded", "whole"):
        processor.save_pretrained(written / name)
        assert str(written) not in (written / name / "config.json").read_text()
    moved = root / kind
    written.rename(moved)
    hub = {name: as_hub_repository(moved / name, root / "hub", f"{kind}-{name}") for name in ("embedded", "whole")}
    # a second state of the repository in a cache of its own, under a branch
    elsewhere = root / "elsewhere"
    as_hub_repository(moved / "whole", elsewhere, f"{kind}-branched")
    repository = elsewhere / f"models--someone--{kind}-branched"
    (repository / "snapshots" / COMMIT).rename(repository / "snapshots" / OTHER_COMMIT)
    (repository / "refs" / "main").unlink()
    (repository / "refs" / "v1").write_text(OTHER_COMMIT)
    branched = {"name": f"someone/{kind}-branched", "revision": "v1", "cache_dir": str(elsewhere)}
    return {
        "folder, beside": {"name": str(moved / "model")},
        "folder, embedded": {"name": str(moved / "embedded")},
        "hub, inside": {"name": hub["whole"]},
        "hub, embedded": {"name": hub["embedded"]},
        "other cache and revision": branched,
    }


@pytest.fixture(scope="module")
def places(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root = tmp_path_factory.mktemp("towers")
    return root, {kind: made(kind, folder, root) for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def results(places: tuple[Path, dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    root, by_kind = places
    names = {(kind, route): json.dumps(place) for kind, own in by_kind.items() for route, place in own.items()}
    found = run_as_stranger(root, STRANGER, list(names.values()), NUMBA_DISABLE_JIT="1")
    return {key: found[name] for key, name in names.items()}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_tower_runs(
    results: dict[tuple[str, str], dict[str, Any]], places: tuple[Path, dict[str, Any]], kind: str, route: str
) -> None:
    found = results[kind, route]
    assert found["modules"] == ["transformers_modules"] and not found["package"]
    assert found["tower"] == ("transformers_modules" if kind in ("conse", "slip") else "transformers")
    root, _ = places
    rng = np.random.default_rng(0)
    clouds = rng.random((2, 50, 6))
    pictures = [Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(2)]
    model = Ulip2Model.from_pretrained(root / kind / "model").eval()
    processor = Ulip2Processor.from_pretrained(root / kind / "model")
    with torch.no_grad():
        expected = model(**processor(point_clouds=clouds, text=["a red chair", "lamp"], images=pictures))
    for name in ("point_embeds", "text_embeds", "image_embeds"):
        torch.testing.assert_close(torch.tensor(found[name]), expected[name], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(found["alone"]), expected.text_embeds[1:], atol=1e-5, rtol=1e-4)


def test_a_tower_of_its_own_code_needs_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that neither transformers nor this package has is run if the person trusts it, and else nobody is asked."""
    tower = tmp_path / "tower"
    tower.mkdir()
    (tower / "configuration_foreign.py").write_text(
        "from transformers import PreTrainedConfig\n\n\nclass ForeignConfig(PreTrainedConfig):\n"
        '    model_type = "foreign_dual_encoder"\n    width: int = 4\n'
    )
    (tower / "modeling_foreign.py").write_text(FOREIGN_MODEL)
    (tower / "config.json").write_text(
        json.dumps(
            {
                "model_type": "foreign_dual_encoder",
                "architectures": ["ForeignModel"],
                "auto_map": {
                    "AutoConfig": "configuration_foreign.ForeignConfig",
                    "AutoModel": "modeling_foreign.ForeignModel",
                },
            }
        )
    )
    from safetensors.torch import save_file

    save_file({"scale": torch.ones(4)}, tower / "model.safetensors", {"format": "pt"})
    Ulip2Model(Ulip2Config(point_config=POINT_CONFIG, projection_dim=4, clip_name_or_path=str(tower))).save_pretrained(
        tmp_path / "model"
    )
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked at the terminal"))
    ids = torch.ones(1, 3, dtype=torch.long)
    with pytest.raises(OSError, match=r"(?s)could not be loaded.*trust_remote_code=True"):
        Ulip2Model.from_pretrained(tmp_path / "model").get_text_features(ids)
    trusting = Ulip2Model.from_pretrained(tmp_path / "model", trust_remote_code=True)
    torch.testing.assert_close(trusting.get_text_features(ids).pooler_output, torch.ones(1, 4))


FOREIGN_MODEL = """
import torch
from transformers import PreTrainedModel

from .configuration_foreign import ForeignConfig


class ForeignModel(PreTrainedModel):
    config_class = ForeignConfig

    def __init__(self, config):
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(config.width))
        self.post_init()

    def get_text_features(self, input_ids):
        return input_ids.float().mean(-1, keepdim=True) * self.scale

    def get_image_features(self, pixel_values):
        return pixel_values.flatten(1).mean(-1, keepdim=True) * self.scale
"""
