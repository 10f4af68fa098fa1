"""Every command through `main`: what is wrong is one line that names it, and the exit status is 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.cli import COMMANDS, command_name, main
from modeling_ulip2.utils.scripts import BAD_INPUT
from tests.dataset_scripts.shapes import write_box
from tests.evaluation.world import build_world

OFFLINE = "no such folder, nor on the hub"
# Words of a command, and what the one line says; `W` is a world, the other names lie in an empty folder.
CASES = [
    ("build --output out", "--meshes"),
    ("build --meshes missing --output out", f"missing: {OFFLINE}"),
    ("build --meshes someone/missing --output out", f"someone/missing: {OFFLINE}"),
    ("build --meshes empty --output out", "empty has no mesh"),
    ("build --meshes W/meshes --output file/out --captioner metadata --no-ranking --no-features", "cannot write into"),
    ("build --meshes W/meshes --output out --views 0", "--views"),
    ("convert-triplets ulip-objaverse --release missing --output out", f"missing: {OFFLINE}"),
    ("convert-triplets openshape-lvis --release empty --output out", "empty"),
    ("convert-triplets openshape-lvis --release empty --output out --depth", "only ulip-shapenet"),
    ("embed-triplets empty --tower W/tower", "empty holds no triplets/*.parquet"),
    ("describe --triplets missing --output out", f"missing: {OFFLINE}"),
    ("split missing out.json", f"missing: {OFFLINE}"),
    ("split W/dataset out.json --share 2", "between 0 and 1"),
    ("inspect missing", f"missing: {OFFLINE}"),
    ("inspect empty", "empty holds no triplets/*.parquet"),
    ("inspect file", "file is a file, not a folder"),
    ("merge missing W/dataset --output out", f"missing: {OFFLINE}"),
    ("merge W/dataset --output out", "holds no manifest.json: build it with `ulip2 build`"),
    ("publish W/dataset", "--push-to-hub --check"),
    ("publish empty --push-to-hub name", "expected ORG/NAME"),
    ("pretrain --dataset missing --tower W/tower --output_dir out --use_cpu", f"missing: {OFFLINE}"),
    ("pretrain --dataset W/dataset --tower no/tower --output_dir out --use_cpu", "no/tower"),
    ("pretrain --dataset W/dataset --tower W/tower --output_dir file/out --use_cpu", "file/out"),
    (
        "pretrain --dataset W/dataset --tower W/tower --output_dir out --use_cpu --learning_rate fast",
        "--learning_rate",
    ),
    ("pretrain --dataset W/dataset --tower W/tower --output_dir out --learningrate 1", "--learningrate 1"),
    ("pretrain --dataset W/dataset --tower W/tower --output_dir out --use_cpu --split_file file", "file is no JSON"),
    ("pretrain --config missing.yaml", "missing.yaml"),
    ("finetune --dataset missing --output_dir out --use_cpu", f"missing: {OFFLINE}"),
    ("finetune --dataset W/dataset --model_name_or_path no/model --output_dir out --use_cpu", f"no/model: {OFFLINE}"),
    ("finetune dance", "'dance'"),
    ("finetune captioning --dataset missing --output_dir out --use_cpu", f"missing: {OFFLINE}"),
    ("finetune captioning --dataset W/dataset --output_dir out --use_cpu", "needs --language_model"),
    ("evaluate --model missing --dataset W/dataset --labels_file W/labels.csv --output_dir out", "missing"),
    ("evaluate zero-shot --model W/model --dataset W/dataset --output_dir out", "triplets need --labels_file"),
    ("evaluate zero-shot --model W/model --dataset W/dataset --benchmark modelnet40 --output_dir out", "no benchmark"),
    ("evaluate zero_shot --model W/model --dataset W/dataset --labels_file no.csv --output_dir out", "no.csv"),
    ("evaluate retrieval --model no/model --dataset W/dataset --output_dir out", f"no/model: {OFFLINE}"),
    ("evaluate retrieval --model W/model --dataset W/dataset --output_dir file/out", "file/out"),
    ("evaluate captioning --model no/model --dataset W/dataset --output_dir out", f"no/model: {OFFLINE}"),
    ("evaluate captioning --predictions file --dataset W/dataset --output_dir out", "file, line 1"),
    (
        "evaluate robustness --model W/m --dataset W/dataset --labels_file W/labels.csv --output_dir o --curves fog",
        "fog",
    ),
    ("evaluate scenes --dataset missing --model W/model --output_dir out", f"missing: {OFFLINE}"),
    ("evaluate scenes --dataset W/dataset --model W/model --output_dir out", "holds no scenes 'complete'"),
    ("evaluate leaderboard --models W/model --output_dir out", "--benchmarks"),
    (
        "embed W/clouds -o out.parquet --model no/model --revision v1 --token x --cache_dir cache",
        f"no/model: {OFFLINE}",
    ),
    ("classify W/clouds --labels chair lamp --model empty", "empty holds no config.json"),
    ("caption W/clouds --model W/model", "which writes no text"),
    ("scene missing.ply --labels chair --model W/model", "missing.ply"),
    ("scene W/clouds/a.npy --model W/model", "--labels to name objects, or --find"),
    ("index W/clouds file/out --model W/model", "file/out"),
    ("search missing words", f"missing: {OFFLINE}"),
    ("info missing", f"missing: {OFFLINE}"),
    ("convert missing.pt out", "missing.pt"),
    ("verify empty", "no config.json"),
    ("export empty --format onnx", "empty"),
    ("releases nothing", "nothing"),
    ("dance", "'dance'"),
    ("--print-completion fish", "'fish'"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    build_world(folder)
    write_box(folder / "meshes" / "box.obj")
    (folder / "clouds").mkdir()
    np.save(folder / "clouds" / "a.npy", np.random.default_rng(0).random((80, 6)).astype(np.float32))
    return folder


def test_every_command_is_tried() -> None:
    names = {command_name(module) for modules in COMMANDS.values() for module in modules}
    assert names <= {words.split()[0] for words, _ in CASES}


@pytest.mark.parametrize(("words", "said"), CASES, ids=[words for words, _ in CASES])
def test_what_is_wrong_is_one_line(words: str, said: str, world: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x\n")
    given = [word.replace("W/", f"{world}/") for word in words.split()]
    try:
        status = main(given)
    except SystemExit as ended:  # of argparse
        status = ended.code
    error = capsys.readouterr().err
    assert status == BAD_INPUT, error
    lines = [line for line in error.splitlines() if said in line]
    assert len(lines) == 1 and lines[0] == error.splitlines()[-1], error
    assert "Traceback" not in error and lines[0].startswith("ulip2")


def test_the_traceback_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing"):
        main(["inspect", "missing", "--traceback"])
