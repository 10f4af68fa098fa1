"""`Auto*` classes: on import of the package, and by remote code where the package cannot be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor

from modeling_ulip2 import (
    PointBertConfig,
    PointBertModel,
    Ulip2Config,
    Ulip2FeatureExtractor,
    Ulip2ForPointCloudClassification,
    Ulip2Model,
    Ulip2Output,
    Ulip2PointModelWithProjection,
    Ulip2Processor,
)
from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS
from tests.models import tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model with its tower, and processor, in one folder."""
    path = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    model = Ulip2Model(Ulip2Config(point_config=tiny.POINT_CONFIG, projection_dim=tiny.PROJECTION_DIM))
    model.set_clip_model(tiny.tower())
    model.save_pretrained(path)
    features = Ulip2FeatureExtractor(num_points=40)
    Ulip2Processor(features, tiny.tokenizer(), tiny.image_processor()).save_pretrained(path)
    return path


def test_import_registers_the_classes(checkpoint: Path, tmp_path: Path) -> None:
    assert type(AutoConfig.from_pretrained(checkpoint)) is Ulip2Config
    assert type(AutoModel.from_pretrained(checkpoint)) is Ulip2Model
    assert type(AutoFeatureExtractor.from_pretrained(checkpoint)) is Ulip2FeatureExtractor
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert type(processor) is Ulip2Processor and processor.feature_extractor.num_points == 40
    PointBertModel(PointBertConfig(**tiny.POINT_CONFIG)).save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is PointBertModel


def test_a_checkpoint_carries_its_code(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["auto_map"] == {
        "AutoConfig": "configuration_ulip2.Ulip2Config",
        "AutoModel": "modeling_ulip2.Ulip2Model",
    }
    package = Path(sys.modules["modeling_ulip2"].__file__).parent
    carried = {path.name for path in checkpoint.glob("*.py")}
    assert {"configuration_ulip2.py", "modeling_ulip2.py", "modeling_pointbert.py", "processing_ulip2.py"} <= carried
    assert carried <= {path.name for path in (package / "models").glob("*.py")}


# How everything that a stranger runs begins: the package is made impossible to import.
PRELUDE = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "modeling_ulip2" or name.startswith("modeling_ulip2."):
            raise ModuleNotFoundError("the package is not installed", name=name)

sys.meta_path.insert(0, Refuse())
"""

STRANGER = """
import numpy as np, torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor

cloud = np.random.default_rng(0).random((50, 6))
results = {}
for name in sys.argv[2:]:
    config = AutoConfig.from_pretrained(name, trust_remote_code=True)
    model = AutoModel.from_pretrained(name, trust_remote_code=True)
    features = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=True)
    batch = dict(features(cloud))
    parts = [config, model, features]
    if hasattr(model, "logit_scale"):
        processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
        batch = dict(processor(point_clouds=cloud, text=[["a red chair", "a lamp"]]))
        parts.append(processor)
    with torch.no_grad():
        output = model(**batch)
    keys = [key for key in ("point_embeds", "text_embeds", "logits") if output.get(key) is not None]
    result = {key: output[key].tolist() for key in keys}
    result["modules"] = sorted({type(part).__module__.split(".")[0] for part in parts})
    result["names"] = [type(part).__name__ for part in parts]
    results[name] = result
"""

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def encoder_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For every encoder a folder with the projected encoder and its feature extractor."""
    folders = {}
    for model_type, fields in tiny.ENCODERS.items():
        folders[model_type] = folder = tmp_path_factory.mktemp(model_type)
        torch.manual_seed(0)
        config = Ulip2Config(point_config={"model_type": model_type, **fields}, projection_dim=tiny.PROJECTION_DIM)
        Ulip2PointModelWithProjection(config).save_pretrained(folder)
        Ulip2FeatureExtractor(num_points=40, in_channels=config.point_config.in_channels).save_pretrained(folder)
    return folders


def as_hub_repository(folder: Path, cache: Path, name: str) -> str:
    """Puts a folder into a hub cache, in the layout in which huggingface_hub keeps what it has downloaded."""
    repo = cache / f"models--someone--{name}"
    (repo / "snapshots").mkdir(parents=True)
    (repo / "snapshots" / COMMIT).symlink_to(folder)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return f"someone/{name}"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("classifier")


@pytest.fixture(scope="module")
def results(checkpoint: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What a stranger gets from a folder, a hub cache, a folder of the point side alone, and one of a classifier."""
    root = tmp_path_factory.mktemp("stranger")
    Ulip2PointModelWithProjection.from_pretrained(checkpoint).save_pretrained(root / "points")
    Ulip2FeatureExtractor(num_points=40).save_pretrained(root / "points")
    Ulip2ForPointCloudClassification.from_pretrained(checkpoint, num_labels=3).save_pretrained(classifier)
    Ulip2FeatureExtractor(num_points=40).save_pretrained(classifier)
    hub = as_hub_repository(checkpoint, root / "hub", "ulip2-tiny")
    names = {"folder": str(checkpoint), "hub": hub, "points": str(root / "points"), "classifier": str(classifier)}
    return seen_by_a_stranger(root, names)


@pytest.fixture(scope="module")
def encoder_results(
    encoder_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What a stranger gets of every encoder, from a folder and from a hub cache."""
    root = tmp_path_factory.mktemp("stranger_encoders")
    names = {}
    for model_type, folder in encoder_folders.items():
        names[f"{model_type} folder"] = str(folder)
        names[f"{model_type} hub"] = as_hub_repository(folder, root / "hub", model_type)
    # each copy of the code would compile its point operators anew; interpreting them is faster on clouds so small
    return seen_by_a_stranger(root, names, NUMBA_DISABLE_JIT="1")


def seen_by_a_stranger(root: Path, names: dict[str, str], **variables: str) -> dict[str, dict[str, Any]]:
    """What `STRANGER` finds in folders and hub names."""
    found = run_as_stranger(root, STRANGER, list(names.values()), **variables)
    return {key: found[name] for key, name in names.items()}


def run_as_stranger(root: Path, script: str, names: list[str], **variables: str) -> dict[str, dict[str, Any]]:
    """Runs a script that fills `results` by name, in a process of its own with `root` as home of its caches.

    The package cannot be imported there, and the network is off.
    """
    (root / "stranger.py").write_text(f'{PRELUDE}{script}\njson.dump(results, open(sys.argv[1], "w"))\n')
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "HF_MODULES_CACHE": str(root / "modules"),
        "HF_HUB_CACHE": str(root / "hub"),
        **variables,
    }
    command = [sys.executable, "stranger.py", "results.json", *names]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((root / "results.json").read_text())


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> Ulip2Output:
    processor = AutoProcessor.from_pretrained(checkpoint)
    cloud = np.random.default_rng(0).random((50, 6))
    with torch.no_grad():
        model = AutoModel.from_pretrained(checkpoint)
        return model(**processor(point_clouds=cloud, text=[["a red chair", "a lamp"]]))


@pytest.mark.parametrize("source", ["folder", "hub"])
def test_remote_code(results: dict[str, dict[str, Any]], expected: Ulip2Output, source: str) -> None:
    found = results[source]
    assert found["modules"] == ["transformers_modules"]
    assert found["names"] == ["Ulip2Config", "Ulip2Model", "Ulip2FeatureExtractor", "Ulip2Processor"]
    for name in ("point_embeds", "text_embeds"):
        torch.testing.assert_close(torch.tensor(found[name]), expected[name], atol=1e-5, rtol=1e-4)


def test_every_encoder_is_tested_here() -> None:
    own = {name for name, classes in POINT_ENCODERS.items() if classes.config_class.__module__.startswith("modeling_")}
    assert set(tiny.ENCODERS) == own


@pytest.mark.parametrize("source", ["folder", "hub"])
@pytest.mark.parametrize("model_type", list(tiny.ENCODERS))
def test_remote_code_of_every_encoder(
    encoder_results: dict[str, dict[str, Any]], encoder_folders: dict[str, Path], model_type: str, source: str
) -> None:
    found, folder = encoder_results[f"{model_type} {source}"], encoder_folders[model_type]
    assert found["modules"] == ["transformers_modules"]
    assert found["names"] == ["Ulip2Config", "Ulip2PointModelWithProjection", "Ulip2FeatureExtractor"]
    model = Ulip2PointModelWithProjection.from_pretrained(folder)
    assert model.config.point_config.model_type == model_type
    cloud = np.random.default_rng(0).random((50, 6))
    with torch.no_grad():
        expected = model(**Ulip2FeatureExtractor.from_pretrained(folder)(cloud)).point_embeds
    torch.testing.assert_close(torch.tensor(found["point_embeds"]), expected, atol=1e-5, rtol=1e-4)


def test_remote_code_of_the_point_side_alone(results: dict[str, dict[str, Any]], expected: Ulip2Output) -> None:
    """A checkpoint of the projected encoder: no tower, no tokenizer."""
    found = results["points"]
    assert found["modules"] == ["transformers_modules"]
    assert found["names"] == ["Ulip2Config", "Ulip2PointModelWithProjection", "Ulip2FeatureExtractor"]
    unit = torch.nn.functional.normalize(torch.tensor(found["point_embeds"]), dim=-1)
    torch.testing.assert_close(unit, expected.point_embeds, atol=1e-5, rtol=1e-4)


def test_remote_code_of_a_classifier(results: dict[str, dict[str, Any]], classifier: Path) -> None:
    found = results["classifier"]
    assert found["modules"] == ["transformers_modules"]
    assert found["names"] == ["Ulip2Config", "Ulip2ForPointCloudClassification", "Ulip2FeatureExtractor"]
    model = Ulip2ForPointCloudClassification.from_pretrained(classifier)
    cloud = np.random.default_rng(0).random((50, 6))
    with torch.no_grad():
        expected = model(**Ulip2FeatureExtractor.from_pretrained(classifier)(cloud)).logits
    torch.testing.assert_close(torch.tensor(found["logits"]), expected, atol=1e-5, rtol=1e-4)
