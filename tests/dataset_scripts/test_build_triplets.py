import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from modeling_ulip2.building.meshes import main, parse_arguments
from modeling_ulip2.data.images import open_view
from modeling_ulip2.data.schema import features_features, triplet_features

from .shapes import build_arguments as arguments
from .shapes import write_box

SCRIPT = Path(__file__).parents[2] / "dataset_scripts" / "build_triplets.py"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the manifest and the log, which hold times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".json", ".jsonl"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("streaming", [False, True])
def test_meshes_become_triplets_that_load_dataset_reads(built, tmp_path, streaming):
    cache = str(tmp_path)
    rows = load_dataset(str(built), "triplets", split="train", streaming=streaming, cache_dir=cache)
    assert rows.features == triplet_features(64)
    rows = {row["id"]: row for row in rows}
    assert list(rows) == [f"boxes/Box{letter}.obj" for letter in "ABCDEF"]
    row = rows["boxes/BoxB.obj"]
    assert row["name"] == "box b" and len(row["views"]) == 3 and row["azimuths"] == [0, 120, 240]
    assert np.array(row["xyz"]).shape == (64, 3) and (np.array(row["rgb"]) == [0, 0, 255]).all()
    for captions, scores in zip(row["captions"], row["caption_scores"], strict=True):
        assert len(captions) == len(scores) == 8 and scores == sorted(scores, reverse=True)
        assert sum("box b" in caption for caption in captions) == 6
        assert sum(caption.startswith("a blue ") for caption in captions) == 2


def test_features_are_the_towers_embeddings_of_what_is_stored(built, tower, tmp_path):
    from modeling_ulip2.towers import load_tower

    loaded = load_tower(tower)
    triplets = load_dataset(str(built), "triplets", split="train", cache_dir=str(tmp_path))
    features = load_dataset(str(built), "features", split="train", cache_dir=str(tmp_path))
    assert features.features == features_features(loaded.dim) and features["id"] == triplets["id"]
    row, embeds = triplets[3], features[3]
    images = loaded.encode_images([open_view(view) for view in row["views"]]).numpy()
    np.testing.assert_allclose(np.array(embeds["image_embeds"]), images, atol=1e-3)
    for view in range(3):
        texts = loaded.encode_text(row["captions"][view]).numpy()
        np.testing.assert_allclose(np.array(embeds["text_embeds"][view]), texts, atol=1e-3)
        np.testing.assert_allclose(row["caption_scores"][view], texts @ images[view], atol=1e-5)


def test_no_mesh_is_skipped_in_silence(built, meshes):
    errors = {row["id"]: row["reason"] for row in pq.read_table(built / "errors.parquet").to_pylist()}
    assert errors == meshes[1]


def test_the_manifest_and_card_name_tower_and_source(built, tower):
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["settings"]["tower"] == "tiny" and str(tower.parent) not in json.dumps(manifest)
    assert {stage["fingerprint"] for stage in manifest["stages"].values() if "fingerprint" in stage} == {
        manifest["stages"]["RankCaptions"]["fingerprint"]
    }
    card = (built / "README.md").read_text()
    assert (
        "taken to be y up" in card
        and "# boxes" in card
        and "Boxes, made for tests." in card
        and str(built.parent) not in card
    )


def test_a_second_run_redoes_nothing(built, meshes, tower, capsys):
    times = {path: path.stat().st_mtime_ns for path in built.rglob("*")}
    main(arguments(meshes[0], built, tower))
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*")} == times
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.timeout(300)
def test_rows_do_not_depend_on_the_number_of_processes(built, meshes, tower, tmp_path):
    for number in ("1", "3"):
        output = tmp_path / number / "boxes"
        main(arguments(meshes[0], output, tower, "--num-proc", number))
        assert contents(output) == contents(built)


def test_a_lost_shard_is_made_again_as_it_was(built, meshes, tower, tmp_path):
    output = tmp_path / "boxes"
    shutil.copytree(built, output)
    (output / "triplets" / "train-00000-of-00003.parquet").unlink()
    (output / "features" / "train-00001-of-00003.parquet").write_bytes(b"PAR1")
    main(arguments(meshes[0], output, tower))
    assert contents(output) == contents(built)


def test_other_settings_are_refused_and_nothing_is_lost(built, meshes, tower):
    before = contents(built)
    with pytest.raises(SystemExit, match=r"size was 32 and is now 48; captioners was .* Use the same settings"):
        main(arguments(meshes[0], built, tower, "--size", "48", "--captioner", "metadata"))
    with pytest.raises(SystemExit, match="11 then, 4 now"):
        main(arguments(meshes[0], built, tower, "--limit", "4"))
    assert contents(built) == before


def test_another_tower_under_the_same_name_is_refused(built, meshes, tmp_path):
    from tests.evaluation.world import build_processor, build_tower

    other = build_tower()
    other.text_projection.weight.data *= 2
    other.save_pretrained(tmp_path / "tiny")
    build_processor().save_pretrained(tmp_path / "tiny")
    output = tmp_path / "boxes"
    shutil.copytree(built, output)
    (output / "triplets" / "train-00000-of-00003.parquet").unlink()
    with pytest.raises(SystemExit, match="was begun with EmbedViews .*fingerprint"):
        main(arguments(meshes[0], output, tmp_path / "tiny"))


def test_options_choose_captioners_features_and_depth(meshes, tower, tmp_path):
    more = ["--captioner", "metadata", "--metadata-captions", "2", "--no-features", "--depth", "--limit", "2"]
    main(
        arguments(
            meshes[0],
            tmp_path / "out",
            tower,
            *more,
            "--image-format",
            "png",
            "--title",
            "Two boxes",
            "--up-axis",
            "z",
        )
    )
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features == triplet_features(64, depth=True) and len(rows) == 2
    assert [len(captions) for captions in rows[0]["captions"]] == [2, 2, 2]
    assert rows[0]["depth_scale"] > 0 and np.asarray(rows[0]["depths"][0]).dtype == np.uint16
    assert not (tmp_path / "out" / "features").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# Two boxes" in card and "Meshes are z up in their files and were turned y up" in card


def test_captions_that_are_not_ranked_need_no_tower(meshes, tmp_path):
    output, more = tmp_path / "out", ["--captioner", "metadata", "--metadata-captions", "3", "--limit", "2"]
    main(arguments(meshes[0], output, tmp_path / "absent", *more, "--no-ranking", "--no-features"))
    rows = load_dataset(str(output), split="train", cache_dir=str(tmp_path / "cache"))
    for row in rows:
        assert len({tuple(own) for own in row["captions"]}) == 1 and len(row["captions"][0]) == 3
        assert row["caption_scores"] == [[None] * 3] * 3
    manifest = json.loads((output / "manifest.json").read_text())
    assert manifest["settings"]["tower"] is None and manifest["settings"]["ranking"] is False
    assert "EmbedViews" not in manifest["stages"]
    assert "in the order in which they were made, without scores" in (output / "README.md").read_text()


def test_features_are_those_of_captions_that_are_not_ranked(built, meshes, tower, tmp_path):
    main(arguments(meshes[0], tmp_path / "out", tower, "--no-ranking"))
    ranked, kept = (
        {
            row["id"]: (row, own)
            for row, own in zip(
                load_dataset(str(folder), "triplets", split="train", cache_dir=str(tmp_path / folder.name)),
                load_dataset(str(folder), "features", split="train", cache_dir=str(tmp_path / folder.name)),
                strict=True,
            )
        }
        for folder in (built, tmp_path / "out")
    )
    assert set(ranked) == set(kept)
    for name, (row, features) in kept.items():
        assert np.array_equal(features["image_embeds"], ranked[name][1]["image_embeds"])
        for view, captions in enumerate(row["captions"]):
            other = ranked[name][0]["captions"][view]
            assert sorted(captions) == sorted(other)
            embeds = np.asarray(ranked[name][1]["text_embeds"][view])[[other.index(text) for text in captions]]
            assert np.allclose(features["text_embeds"][view], embeds, atol=1e-3)


def test_shards_are_cut_by_the_number_of_objects_alone(meshes, tower, tmp_path):
    small = ["--num-points", "8", "--views", "1", "--size", "16", "--captioner", "metadata", "--no-features"]
    folders = ["--meshes", str(meshes[0]), "--output", str(tmp_path / "out"), "--tower", str(tower)]
    main([*folders, *small, "--num-proc", "0"])
    names = sorted(path.name for path in (tmp_path / "out" / "triplets").iterdir())
    assert names[0] == "train-00000-of-00002.parquet"  # 11 objects in shards of 8


def test_objects_without_any_words_are_recorded(tower, tmp_path):
    write_box(tmp_path / "meshes" / "0001.obj")
    with pytest.raises(SystemExit, match=r"not one object .*errors.parquet"):
        main(arguments(tmp_path / "meshes", tmp_path / "out", tower, "--captioner", "metadata"))
    assert [row["reason"] for row in pq.read_table(tmp_path / "out" / "errors.parquet").to_pylist()] == ["no_captions"]


@pytest.mark.timeout(300)
def test_a_killed_build_goes_on_and_ends_like_one_that_was_not(built, meshes, tower, tmp_path):
    output = tmp_path / "boxes"
    command = [sys.executable, str(SCRIPT), *arguments(meshes[0], output, tower, "--num-proc", "1")]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first = output / "triplets" / "train-00000-of-00003.parquet"
    while process.poll() is None and not first.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert first.exists() and not (output / "triplets" / "train-00002-of-00003.parquet").exists()
    deadline = time.monotonic() + 60
    while True:  # the killed build's worker notices and goes, too
        try:
            main(arguments(meshes[0], output, tower))
            break
        except SystemExit:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert contents(output) == contents(built)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--meshes": "absent"}, "no such folder"),
        ({"--meshes": "empty"}, "has no mesh"),
        ({"--output": "file"}, "cannot write into"),
        ({"--output": "file/out"}, "cannot write into"),
        ({"--output": "full"}, "holds 'cat.jpg' but no manifest.json"),
    ],
)
def test_folders_that_cannot_be_used_are_sentences(meshes, tower, tmp_path, change, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "cat.jpg").write_text("")
    (tmp_path / "file").write_text("")
    folders = {"--meshes": str(meshes[0]), "--output": str(tmp_path / "out")}
    folders |= {option: str(tmp_path / name) for option, name in change.items()}
    with pytest.raises(SystemExit, match=message):
        main(arguments(Path(folders["--meshes"]), Path(folders["--output"]), tower))


def test_a_tower_that_does_not_exist_is_a_sentence(meshes, tmp_path):
    with pytest.raises(SystemExit, match="absent"):
        main(arguments(meshes[0], tmp_path / "out", tmp_path / "absent"))


@pytest.mark.parametrize(
    "more",
    [
        ["--views", "0"],
        ["--num-proc", "-1"],
        ["--background", "0", "0", "256"],
        ["--captioner", "poet"],
        ["--size", "x"],
    ],
)
def test_impossible_options_are_refused(more, capsys):
    with pytest.raises(SystemExit) as error:
        parse_arguments(["--meshes", "a", "--output", "b", *more])
    assert error.value.code == 2 and more[0] in capsys.readouterr().err
