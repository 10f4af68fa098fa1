"""Published checkpoints by name, end to end against the loopback: fetched, converted, verified, published, loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants
from huggingface_hub.repocard_data import model_index_to_eval_results
from transformers import AutoFeatureExtractor, AutoModel

from modeling_ulip2 import Ulip2Embedder, Ulip2Model
from modeling_ulip2.cli import main
from modeling_ulip2.conversion.catalog import find_named
from modeling_ulip2.conversion.named import converted_release
from modeling_ulip2.models.configuration_ulip2 import PointNextConfig
from modeling_ulip2.models.modeling_pointnext import PointNextModel
from modeling_ulip2.utils.places import PlaceError
from tests.hub.fixtures import environment
from tests.hub.server import TOKEN, LoopbackHub
from tests.models import tiny

RELEASE = "ulip2-pointnext-s"
PUBLISHED = find_named(RELEASE).file
assert PUBLISHED is not None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file in the layout and the size of ULIP-2's PointNeXt-S, with random weights."""
    torch.manual_seed(0)
    encoder = PointNextModel(PointNextConfig(in_channels=4)).eval()
    tensors = {f"module.point_encoder.{name}": value for name, value in encoder.state_dict().items()}
    tensors |= {"module.pc_projection": torch.randn(256, 1280) / 16, "module.logit_scale": torch.tensor(3.0)}
    path = tmp_path_factory.mktemp("published") / "checkpoint.pt"
    torch.save({"state_dict": tensors, "epoch": 5}, path)
    return path.read_bytes()


@pytest.fixture
def releases(loopback_hub: LoopbackHub, checkpoint: bytes) -> LoopbackHub:
    """The hub with the repository in which that file lies."""
    loopback_hub.add("SFXX/ulip", {PUBLISHED.path: checkpoint}, kind="dataset")
    return loopback_hub


STRANGER = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "modeling_ulip2" or name.startswith("modeling_ulip2."):
            raise ModuleNotFoundError("the package is not installed", name=name)

sys.meta_path.insert(0, Refuse())
import torch
from transformers import AutoFeatureExtractor, AutoModel

model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()
features = AutoFeatureExtractor.from_pretrained(sys.argv[1], trust_remote_code=True)
with torch.no_grad():
    embeds = model.get_point_features(torch.tensor(json.loads(sys.argv[2]))).pooler_output
print(json.dumps([type(features).__name__, features.num_points, embeds.tolist()]))
"""


def test_from_a_name_to_a_published_model(
    releases: LoopbackHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ulip2 convert NAME OUT --push-to-hub ORG/NAME`, then the lines of anybody, here and without the package."""
    folder = tmp_path / "out"
    assert main(["convert", RELEASE, str(folder), "--push-to-hub", "org/ulip2-pointnext", "--private"]) == 0
    printed = capsys.readouterr().out
    assert "ULIP-2 PointNeXt-S, 2k points" in printed and "org/ulip2-pointnext" in printed
    repository = releases["org/ulip2-pointnext"]
    assert repository.private and len(repository.titles) == 2
    assert "ULIP-2 PointNeXt-S, 2k points, converted by modeling-ulip2" in repository.titles[1]
    assert {"model.safetensors", "config.json", "verification.safetensors", "modeling_ulip2.py"} <= {*repository.files}
    for name, content in repository.files.items():
        assert str(tmp_path).encode() not in content, name

    card = ModelCard(repository.files["README.md"].decode())
    assert (card.data.license, card.data.base_model) == (
        "bsd-3-clause",
        "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
    )
    assert 'from_pretrained("org/ulip2-pointnext"' in card.text and "FOLDER" not in card.text
    assert "91.5 / 90.9" in card.text
    card.validate()

    points = tiny.clouds(1, channels=4, points=130)
    with torch.no_grad():
        here = AutoModel.from_pretrained("org/ulip2-pointnext").eval().get_point_features(points).pooler_output
    assert here.shape == (1, 1280)
    (tmp_path / "stranger.py").write_text(STRANGER)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "stranger.py"), "org/ulip2-pointnext", json.dumps(points.tolist())],
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        | environment(releases, tmp_path / "home")
        | {"NUMBA_DISABLE_JIT": "1"},
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    extractor, num_points, embeds = json.loads(done.stdout.splitlines()[-1])
    assert (extractor, num_points) == ("Ulip2FeatureExtractor", 2048)
    torch.testing.assert_close(torch.tensor(embeds), here, atol=1e-5, rtol=1e-4)
    assert not releases.unserved


def test_by_name_on_first_use(
    releases: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    model = Ulip2Model.from_release(RELEASE).eval()
    assert model.config.clip_name_or_path == "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
    assert "fetched and converted once" in caplog.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # it is kept
    embedder = Ulip2Embedder.from_pretrained(RELEASE, device="cpu")
    cloud = tiny.clouds(1, channels=6, points=1100)[0].numpy()
    assert embedder.embed_shapes([cloud]).shape == (1, 1280)
    folder = converted_release(RELEASE)
    assert str(folder).startswith(constants.HF_ASSETS_CACHE) and len(releases.asked("GET", "storage")) == 1
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


def test_a_folder_of_that_name_comes_first(releases: LoopbackHub, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path(RELEASE).mkdir()
    with pytest.raises(PlaceError, match="holds no config.json"):
        Ulip2Embedder.from_pretrained(RELEASE)


def test_half_written_ones_are_never_used(releases: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from modeling_ulip2.conversion import folder as folders

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(folders, "record", full)
        with pytest.raises(OSError, match="No space left"):
            converted_release(RELEASE)
    place = Path(constants.HF_ASSETS_CACHE)
    assert not [path for path in place.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert converted_release(RELEASE).is_dir()


def test_two_at_once_convert_once(releases: LoopbackHub, caplog: pytest.LogCaptureFixture) -> None:
    """A lock of the file system parts threads as it parts processes."""
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(converted_release, [RELEASE, RELEASE])
    assert first == second and (first / "model.safetensors").is_file()
    assert caplog.text.count("converted once") == len(releases.asked("GET", "storage")) == 1


def test_a_transfer_that_breaks_off(releases: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)
    releases.breaks[PUBLISHED.path] = 500_000
    assert converted_release(RELEASE).is_dir()
    first, second = releases.asked("GET", "storage")
    assert first.range is None and second.range is not None


def test_what_can_be_wrong(
    loopback_hub: LoopbackHub, checkpoint: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every refusal is one line, with what to do, and writes nothing."""

    def refused(name: str, *words: str) -> str:
        assert main(["convert", name, str(tmp_path / "out"), *words]) == 2
        told = capsys.readouterr().err
        assert len([line for line in told.splitlines() if line.startswith("ulip2: ")]) == 1
        assert not (tmp_path / "out").exists()
        return told

    assert "not on the hub any more, or is private" in refused(RELEASE)
    assert "no repository on the hub" in refused("ulip2-pointbert-8k-xyz")
    assert "did you mean ulip2-pointnext-s" in refused("ulip2-pointnext")
    assert "There is no checkpoint file" in refused("nowhere.pt")
    repository = loopback_hub.add("SFXX/ulip", {"old/other.pt": b"x"}, kind="dataset")
    assert "old/other.pt" in refused(RELEASE)
    repository.gated = True
    assert "gated" in refused(RELEASE)
    repository.gated = False
    repository.commit("another file there", {PUBLISHED.path: b"<html>no checkpoint</html>"})
    assert "no torch checkpoint" in (told := refused(RELEASE)) or "HTML" in told
    repository.commit("moved", {f"renamed/{Path(PUBLISHED.path).name}": checkpoint})
    assert main(["convert", RELEASE, str(tmp_path / "moved")]) == 0  # found where it is now
    assert "of a file only" not in refused(RELEASE, "--point_config", "width=8")


def test_a_file_of_another_checkpoint_is_refused(
    loopback_hub: LoopbackHub, checkpoint: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The right place, another model: told before anything is written."""
    other = find_named("ulip1-pointnext-s").file
    assert other is not None
    loopback_hub.add("SFXX/ulip", {other.path: checkpoint}, kind="dataset")
    assert main(["convert", "ulip1-pointnext-s", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "is not ULIP PointNeXt-S" in told and "ULIP-2 PointNeXt-S" in told and not (tmp_path / "out").exists()


def test_revisions_and_private_repositories(
    loopback_hub: LoopbackHub, checkpoint: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = loopback_hub.add("SFXX/ulip", {}, kind="dataset", private=True)
    repository.branches["v1"] = repository.branches["main"]
    repository.commit("weights", {PUBLISHED.path: checkpoint}, "v1")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PlaceError):
        Ulip2Model.from_release(RELEASE, revision="v1")
    with pytest.raises(PlaceError, match="holds no ULIP-2/pretrained_models"):
        Ulip2Model.from_release(RELEASE, token=TOKEN)
    assert Ulip2Model.from_release(RELEASE, revision="v1", token=TOKEN).num_parameters() > 1e6
    assert all(asked.token == TOKEN for asked in loopback_hub.asked("HEAD", "resolve/v1")[1:])


def test_offline_is_told(loopback_hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PlaceError, match="HF_HUB_OFFLINE"):
        converted_release(RELEASE)
    assert not loopback_hub.requests


def test_figures_in_the_metadata() -> None:
    from modeling_ulip2.conversion.card import reported_results

    results = reported_results(find_named("ulip2-pointbert-10k-colored").release)
    told = {(result.dataset_type, result.metric_name): result.metric_value for result in results}
    assert told["modelnet40", "top-1 accuracy, per cent"] == 84.7
    assert told["objaverse_lvis", "top-5 accuracy, per cent"] == 79.1
    from huggingface_hub import ModelCardData

    data = ModelCardData(model_name="a", eval_results=results).to_dict()
    assert model_index_to_eval_results(data["model-index"])[0] == "a" and AutoFeatureExtractor is not None
