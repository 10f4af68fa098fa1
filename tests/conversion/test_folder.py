"""Converted folders: what they hold, that Auto classes and strangers load them, and that bad input writes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor

from modeling_ulip2 import PointBertModel, PpatConfig, Ulip2Model
from modeling_ulip2.conversion import ConversionError, PublishedCheckpoint, convert
from modeling_ulip2.conversion import folder as folders
from modeling_ulip2.conversion.encoders import expected_shapes
from modeling_ulip2.conversion.folder import convert_to_folder, feature_extractor_of, release_of
from modeling_ulip2.conversion.releases import RELEASES, find_release
from modeling_ulip2.conversion.verify import verify_folder
from modeling_ulip2.towers import SlipModel, load_tower
from tests.conversion import published
from tests.models import tiny


def write(name: str, root: Path, **changes: Any) -> Path:
    file = published.LAYOUTS[name]()
    fields = changes.pop("fields", file.point_config)
    convert_to_folder(file.save(root / f"{name}.pt"), root / name, fields, **changes)
    return root / name


@pytest.fixture(scope="module")
def ulip1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted checkpoint of ULIP's first generation, its tower included."""
    return write("ulip1_pointbert", tmp_path_factory.mktemp("ulip1"))


@pytest.mark.parametrize(
    "name", ["ulip2_pointbert", "ulip2_pointnext", "uni3d", "openshape", "pointbert_pretraining", "pointllm"]
)
def test_auto_classes_load_it(name: str, tmp_path: Path) -> None:
    file, folder = published.LAYOUTS[name](), write(name, tmp_path)
    model = AutoModel.from_pretrained(folder).eval()
    assert type(model) is (PointBertModel if file.embed is None else Ulip2Model)
    features = AutoFeatureExtractor.from_pretrained(folder)
    assert features.in_channels == file.encoder.config.in_channels
    points = tiny.clouds(2, channels=features.in_channels)
    with torch.no_grad():
        if file.embed is None:
            torch.testing.assert_close(model(points).pooled, file.encoder(points).pooled)
        else:
            torch.testing.assert_close(model.get_point_features(points).pooler_output, file.embed(points))


def test_number_of_points_is_the_one_of_the_training_run(tmp_path: Path) -> None:
    assert AutoFeatureExtractor.from_pretrained(write("ulip2_pointbert", tmp_path)).num_points == 300


def test_half_precision_is_kept_on_disk_and_computed_in_float32(tmp_path: Path) -> None:
    file = published.uni3d()
    scale = {"logit_scale": file.content["module"]["logit_scale"]}  # which a file may keep in full precision
    file.content["module"] = {name: value.half() for name, value in file.content["module"].items()} | scale
    convert_to_folder(file.save(tmp_path / "half.pt"), tmp_path / "half", file.point_config)
    assert max(row.of_tolerance for row in verify_folder(tmp_path / "half")) <= 1
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    model = AutoModel.from_pretrained(tmp_path / "half")
    assert model.dtype == torch.float32 and size < 3 * model.num_parameters()


def test_tower_of_the_first_generation(ulip1: Path, tmp_path: Path) -> None:
    assert json.loads((ulip1 / "config.json").read_text())["clip_name_or_path"] == "./tower"
    expected = published.slip()
    ids, pixels = torch.tensor([[5, 9, 59, 0]]), torch.randn(1, 3, 16, 16)
    model = AutoModel.from_pretrained(ulip1)
    assert model.config.clip_name_or_path == f"{ulip1}/tower"
    inputs = AutoProcessor.from_pretrained(ulip1)(
        point_clouds=np.random.default_rng(0).random((40, 6)), text="a chair"
    )
    assert inputs["point_values"].shape == (1, 300, 6) and inputs["input_ids"].tolist() == [[49406, 320, 4269, 49407]]
    model.save_pretrained(tmp_path / "elsewhere")
    for loaded in (model, AutoModel.from_pretrained(tmp_path / "elsewhere")):
        with torch.no_grad():
            text, image = loaded.get_text_features(ids), loaded.get_image_features(pixels)
            torch.testing.assert_close(text.pooler_output, expected.get_text_features(ids).pooler_output)
            torch.testing.assert_close(image.pooler_output, expected.get_image_features(pixels).pooler_output)


def test_tower_of_the_first_generation_by_itself(tmp_path: Path) -> None:
    # the whole vocabulary, as the tokenizer makes ids of it
    published_slip = SlipModel(type(published.slip().config)(**published.SLIP_CONFIG | {"vocab_size": 49408}))
    tensors = {f"module.{name}": value for name, value in published_slip.state_dict().items()}
    torch.save({"state_dict": tensors}, tmp_path / "slip.pt")
    convert_to_folder(tmp_path / "slip.pt", tmp_path / "slip")
    tower = load_tower(tmp_path / "slip", device="cpu")
    assert isinstance(tower.model, SlipModel) and tower.max_length == 12 and tower.dim == published.DIM
    embeds = tower.encode_text(["a chair", "a very long text " * 20])
    assert embeds.shape == (2, published.DIM) and embeds.isfinite().all()
    ids = torch.tensor([[49406, 320, 4269, 49407]])  # "a chair"
    with torch.no_grad():
        expected = published_slip.eval().get_text_features(ids).pooler_output
    torch.testing.assert_close(embeds[:1], torch.nn.functional.normalize(expected), atol=1e-5, rtol=1e-4)
    images = tower.encode_images([np.full((30, 20, 3), 127, dtype=np.uint8)])
    assert images.shape == (1, published.DIM)


def test_card(ulip1: Path) -> None:
    card = (ulip1 / "README.md").read_text(encoding="utf-8")
    for words in ("library_name: transformers", "## Where it comes from", "## How to verify", "ulip2 verify FOLDER"):
        assert words in card
    assert "epoch of the file: 7" in card and "`tower`" in card and "SHA-256" in card
    assert "assumed" not in card  # all settings were given


def test_card_of_a_published_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    release = next(release for release in RELEASES if release.layout == "OpenShape")
    monkeypatch.setattr(folders, "release_of", lambda conversion, checkpoint: release)
    folder = write("openshape", tmp_path)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert release.title in card and "apache-2.0" in card and "46.8 / 77.0" in card and release.training_data in card
    features = AutoFeatureExtractor.from_pretrained(folder)
    assert (features.num_points, features.axes) == (10000, "xzy")
    assert json.loads((folder / "config.json").read_text())["clip_name_or_path"] == release.tower


def test_card_says_what_was_assumed(tmp_path: Path) -> None:
    fields = {"num_attention_heads": 2, "num_groups": 8}
    card = (write("ulip2_pointbert", tmp_path, fields=fields) / "README.md").read_text(encoding="utf-8")
    assert "assumed, since no weight shows them: group_size 32" in card


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.title)
def test_releases_are_complete_and_found(release: Any) -> None:
    assert release.source.startswith("https://") and release.license and release.training_data and release.paper
    config = type("Config", (), dict(release.fields))
    file_name = "ULIP-2-PointBERT-8k.pt" if release.file_name else "checkpoint.pt"
    found = find_release(release.layout, release.model_type, config, release.projection_dim, file_name)
    assert found is release


def ppat_shapes(prefix: str, projection: str, width: int, layers: int, inner: int, abstraction: int, dim: int) -> dict:
    """Tensors without memory of a file of OpenShape's."""
    config = PpatConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=inner,
        set_abstraction_dim=abstraction,
    )
    tensors = {prefix + name: torch.empty(shape, device="meta") for name, shape in expected_shapes(config).items()}
    if projection:
        tensors |= {f"{projection}.weight": torch.empty(dim, width), f"{projection}.bias": torch.empty(dim)}
    return tensors


@pytest.mark.parametrize(
    ("arguments", "title", "grouping"),
    [
        (("ppat.", "proj", 512, 12, 1536, 256, 1280), "ViT-bigG-14", (384, 0.2, 64)),
        (("pc_encoder.ppat.", "pc_encoder.proj", 512, 12, 1024, 128, 768), "ViT-L/14", (64, 0.4, 256)),
        (("pc_encoder.", "", 512, 12, 1024, 128, 512), "ViT-B/32", (64, 0.4, 256)),
        (("ppat.", "proj", 512, 12, 1024, 128, 1280), None, (128, 0.35, 128)),
    ],
)
def test_sizes_of_openshape(arguments: tuple, title: str | None, grouping: tuple[int, float, int]) -> None:
    """The same weights group points differently in different releases."""
    checkpoint = PublishedCheckpoint(ppat_shapes(*arguments))
    conversion = convert(checkpoint)
    config = conversion.model.config.point_config
    assert (config.num_groups, config.group_radius, config.group_size) == grouping
    release = release_of(conversion, checkpoint)
    assert release is None if title is None else title in release.title


# --- bad input -------------------------------------------------------------------------------------------------------


def test_files_that_do_not_fit_write_nothing(tmp_path: Path) -> None:
    file = published.uni3d()
    del file.content["module"]["logit_scale"]
    with pytest.raises(ConversionError, match="logit_scale"):
        convert_to_folder(file.save(tmp_path / "broken.pt"), tmp_path / "out", file.point_config)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.pt"]


def test_failure_while_writing_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(folders, "record", full)
    with pytest.raises(OSError, match="No space left"):
        write("ulip2_pointbert", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ulip2_pointbert.pt"]


def test_existing_content_is_kept(tmp_path: Path) -> None:
    (tmp_path / "ulip2_pointbert").mkdir()
    write("ulip2_pointbert", tmp_path)  # an empty folder is fine
    with pytest.raises(FileExistsError, match="not empty"):
        write("ulip2_pointbert", tmp_path)


# --- a process without the package -----------------------------------------------------------------------------------

STRANGER = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name == "modeling_ulip2" or name.startswith("modeling_ulip2."):
            raise ModuleNotFoundError("the package is not installed", name=name)

sys.meta_path.insert(0, Refuse())
import torch
from transformers import AutoFeatureExtractor, AutoModel

results = {}
for name in json.loads(sys.argv[1]):
    model = AutoModel.from_pretrained(name, trust_remote_code=True).eval()
    features = AutoFeatureExtractor.from_pretrained(name, trust_remote_code=True)
    model.load_clip_model(trust_remote_code=True)
    with torch.no_grad():
        results[name] = {
            "points": model.get_point_features(torch.tensor(json.loads(sys.argv[2]))).pooler_output.tolist(),
            "text": model.get_text_features(torch.tensor([[5, 9, 59, 0]])).pooler_output.tolist(),
            "features": type(features).__name__,
        }
print(json.dumps(results))
"""


def test_remote_code_with_the_tower_in_the_repository(ulip1: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--someone--ulip1"
    (repo / "snapshots").mkdir(parents=True)
    shutil.copytree(ulip1, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (tmp_path / "stranger.py").write_text(STRANGER)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "NUMBA_DISABLE_JIT": "1",  # interpreting the point operators is faster here than compiling the copies
    }
    points = tiny.clouds(1, channels=6)
    sources = [str(ulip1), "someone/ulip1"]
    done = subprocess.run(
        [sys.executable, str(tmp_path / "stranger.py"), json.dumps(sources), json.dumps(points.tolist())],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.splitlines()[-1])
    model = AutoModel.from_pretrained(ulip1)
    with torch.no_grad():
        expected = {
            "points": model.get_point_features(points).pooler_output,
            "text": model.get_text_features(torch.tensor([[5, 9, 59, 0]])).pooler_output,
        }
    for source in sources:
        assert results[source]["features"] == "Ulip2FeatureExtractor"
        for name, value in expected.items():
            torch.testing.assert_close(torch.tensor(results[source][name]), value, atol=1e-5, rtol=1e-4)


def test_tower_inside_a_hub_repository_is_found(ulip1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`load_tower` takes the name to which a model from the hub resolves its `./tower`."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--someone--ulip1"
    (repo / "snapshots").mkdir(parents=True)
    (repo / "snapshots" / commit).symlink_to(ulip1)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    tower = load_tower("someone/ulip1/tower", device="cpu")
    assert isinstance(tower.model, SlipModel) and tower.name == "someone/ulip1/tower"
    assert tower.fingerprint == load_tower(ulip1 / "tower", device="cpu").fingerprint


@pytest.mark.parametrize("release", [own for own in RELEASES if own.model_type], ids=lambda release: release.title)
def test_extractors_carry_what_a_release_says_of_its_clouds(release: Any) -> None:
    """OpenShape's bigG model alone was trained with y and z exchanged, and ULIP thins by farthest points."""
    channels = release.fields.get("in_channels", 6)
    conversion: Any = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(in_channels=channels)))
    made = feature_extractor_of(conversion, SimpleNamespace(args={}), release)  # type: ignore[arg-type]
    assert made.axes == ("xzy" if release.title.endswith("ViT-bigG-14") else "xyz")
    assert made.sampling == ("fps" if "salesforce/ULIP" in release.source else "random")
    assert (made.num_points, made.in_channels, made.normalize, made.up_axis) == (
        release.num_points,
        channels,
        True,
        "y",
    )


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.title)
def test_figures_of_a_release_are_the_published_ones(release: Any) -> None:
    for task, figures in release.accuracy:
        assert task and re.fullmatch(r"\d+\.\d( / \d+\.\d)?", figures)
    published = {release.title: release.accuracy for release in RELEASES}
    assert len(published["ULIP-2 Point-BERT, 10k colored points"]) == 2  # of its own pre-training alone
