"""Every command by names on the hub: private ones, on a branch, with the token and the cache of the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from huggingface_hub import constants

from modeling_ulip2 import Ulip2ForPointCloudClassification
from modeling_ulip2.cli import main
from modeling_ulip2.data.pairs import CAPTIONS_CONFIG, write_pairs
from modeling_ulip2.search.schema import INFO_FILE
from tests.dataset_scripts.shapes import write_box
from tests.evaluation.world import CATEGORIES, build_world
from tests.hub.server import TOKEN, LoopbackHub
from tests.models import captioning_world as captioners

TRAINING = "--max_steps 1 --per_device_train_batch_size 4 --use_cpu --report_to none --disable_tqdm true".split()
SMALL = "--hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --num_groups 4 --group_size 4".split()
SMALL += "--encoder_dims 16 --num_points 32".split()
OF_MODEL, OF_DATASET = ["--revision", "v1"], ["--dataset_revision", "v1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, datasets and texts as folders; the models name each other as the hub does."""
    folder = tmp_path_factory.mktemp("world")
    build_world(folder)
    refer(folder / "model", clip_name_or_path="org/tower")
    captioners.save_parts(folder / "parts")
    rows = [{"id": f"made/{i:02d}.obj", "captions": [f"a red {CATEGORIES[i % 3]}"]} for i in range(12)]
    write_pairs(folder / "texts", CAPTIONS_CONFIG, rows, [], "Texts", "")
    write_box(folder / "meshes" / "box.obj")
    (folder / "clouds").mkdir()
    for name in "ab":
        cloud = np.random.default_rng(ord(name)).random((80, 6)).astype(np.float32)
        np.save(folder / "clouds" / f"{name}.npy", cloud)
    for split in ("train", "test"):
        columns = {"xyz": np.random.default_rng(0).random((6, 80, 3)).tolist(), "label": [0, 1, 2] * 2}
        (folder / "labeled").mkdir(exist_ok=True)
        Dataset.from_dict(columns).to_parquet(folder / "labeled" / f"{split}-00000-of-00001.parquet")
    return folder


def refer(folder: Path, **fields: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def hub(loopback_hub: LoopbackHub, world: Path, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """Nobody is logged in, everything is private, and what counts is not on main."""
    monkeypatch.delenv("HF_TOKEN")
    for name, kind, branch in (
        ("model", "model", "v1"),
        ("dataset", "dataset", "v1"),
        ("labeled", "dataset", "v1"),
        ("meshes", "dataset", "v1"),
        ("texts", "dataset", "main"),
        ("tower", "model", "main"),
        ("parts/language", "model", "main"),
    ):
        root = world / name
        files = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        repository = loopback_hub.add(f"org/{Path(name).name}", {}, kind=kind, private=True)
        repository.commit("content", files, branch)
    return loopback_hub


def commands(world: Path, out: Path) -> dict[str, list[str]]:
    """What is tried, without the token and the cache."""
    triplets = ["--dataset", "org/dataset", *OF_DATASET]
    labels = ["--labels_file", f"{world}/labels.csv", "--split_file", f"{world}/split.json"]
    evaluated = ["--model", "org/model", *OF_MODEL, *triplets, "--output_dir", f"{out}/evaluated"]
    clouds = f"{world}/clouds"
    start = ["--tower", "org/tower", *triplets, "--use_features", "false", "--output_dir", f"{out}/trained", *TRAINING]
    captioner = ["--language_model", "org/language", "--connector", "mlp", "--point_feature_type", "embeds"]
    captioner += ["--point_model", "org/model", *OF_MODEL, "--texts", "org/texts", "--compression", "resample"]
    return {
        "build": ["--meshes", "org/meshes", *OF_MODEL, "--output", f"{out}/b", "--captioner", "metadata"]
        + ["--tower", "org/tower", "--num-proc", "0", "--views", "1", "--num-points", "64", "--size", "32"],
        "embed-triplets": [f"{out}/copy", "--tower", "org/tower", "--num-proc", "0"],
        "inspect": ["org/dataset", *OF_MODEL, "--output", f"{out}/i", "--num-proc", "0"],
        "describe": ["--triplets", "org/dataset", *OF_MODEL, "--output", f"{out}/d"],
        "split": ["org/dataset", f"{out}/split.json", *OF_MODEL],
        "pretrain": [*start, *SMALL],
        "pretrain on": [*start, "--model_name_or_path", "org/model", *OF_MODEL],
        "pretrain a stream": [*start, *SMALL, "--streaming", "true"],
        "finetune": ["--model_name_or_path", "org/model", *OF_MODEL, *triplets, *labels, *TRAINING]
        + ["--output_dir", f"{out}/f"],
        "finetune classification": ["--dataset", "org/labeled", *OF_DATASET, "--output_dir", f"{out}/f", *TRAINING]
        + ["--model_name_or_path", "org/model", *OF_MODEL, "--initializations", "scratch"],
        "finetune captioning": [*captioner, *triplets, "--output_dir", f"{out}/c", *TRAINING]
        + ["--num_query_tokens", "2", "--connector_hidden_size", "16", "--feature_cache", f"{out}/cache"],
        "evaluate zero-shot": [*evaluated, *labels],
        "evaluate retrieval": [*evaluated, *labels, "--tower", "org/tower"],
        "evaluate robustness": [*evaluated, *labels, "--curves", "points", "--limit", "3"],
        "embed": [clouds, "-o", f"{out}/e.parquet", "--model", "org/model", *OF_MODEL],
        "classify": [clouds, "--labels", "chair", "lamp", "--model", "org/model", *OF_MODEL],
        "index": ["org/dataset", f"{out}/index", "--model", "org/model", *OF_MODEL, *OF_DATASET],
        "info": ["org/model", *OF_MODEL],
        "verify": ["org/model", *OF_MODEL],
        "export": ["org/model", *OF_MODEL, "--format", "torch", "--output", f"{out}/exported"],
    }


@pytest.mark.parametrize("command", list(commands(Path(), Path())))
def test_private_names(command: str, hub: LoopbackHub, world: Path, tmp_path: Path, capsys) -> None:
    words = command.removesuffix(" on").removesuffix(" a stream").split()
    shutil.copytree(world / "dataset", tmp_path / "copy")
    given = [*words, *commands(world, tmp_path)[command], "--cache_dir", str(tmp_path / "downloads")]
    assert main(given) == 2, "without a token"
    capsys.readouterr()
    assert main([*given, "--token", TOKEN]) == 0, capsys.readouterr().err[-2000:]
    elsewhere = [path for path in Path(constants.HF_HUB_CACHE).rglob("snapshots/**/*") if path.is_file()]
    assert not elsewhere
    assert TOKEN not in "".join(path.read_text(errors="replace") for path in tmp_path.rglob("*.json"))


def test_an_index_of_the_hub(hub: LoopbackHub, world: Path, tmp_path: Path, capsys) -> None:
    options = ["--token", TOKEN, "--cache_dir", str(tmp_path / "downloads")]
    assert main(["index", f"{world}/clouds", f"{tmp_path}/index", "--model", f"{world}/model"]) == 0
    path = tmp_path / "index" / INFO_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "org/public"}))
    hub.add("org/index", tmp_path / "index", kind="dataset", private=True)
    hub.add("org/public", world / "model", private=True)
    search = ["search", "org/index", "--shape", f"{world}/clouds/a.npy", "--top_k", "1"]
    assert main(search) == 2
    capsys.readouterr()
    assert main([*search, *options]) == 0
    assert capsys.readouterr().out.startswith("1.000")


def test_classifiers_and_exports_of_the_hub(hub: LoopbackHub, world: Path, tmp_path: Path, capsys) -> None:
    assert main(["export", "org/model", "--revision", "v1", "--token", TOKEN, "--format", "torch"]) == 2
    assert "--output" in capsys.readouterr().err
    model = Ulip2ForPointCloudClassification.from_pretrained(
        world / "model", id2label=dict(enumerate(CATEGORIES)), label2id={name: i for i, name in enumerate(CATEGORIES)}
    )
    model.save_pretrained(tmp_path / "classifier")
    for file in (world / "model").glob("*process*"):
        (tmp_path / "classifier" / file.name).write_bytes(file.read_bytes())
    hub.add("org/classifier", tmp_path / "classifier", private=True)
    given = ["evaluate", "robustness", *commands(world, tmp_path)["evaluate robustness"], "--token", TOKEN]
    assert main([*given, "--classifiers", "org/classifier"]) == 0
    measured = json.loads((tmp_path / "evaluated" / "robustness.json").read_text())
    assert {"zero-shot", "classifier"} <= measured["models"].keys()
    assert (measured["revision"], measured["dataset_revision"]) == ("v1", "v1") and "token" not in measured
