"""Texts about shapes: descriptions from names and colors, Cap3D's CSV and PointLLM's JSON, in their real layouts."""

from __future__ import annotations

import json
from pathlib import Path

import cap3d
import numpy as np
import pointllm
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from modeling_ulip2.building import describing
from modeling_ulip2.building.sources.pairs import NamedShapes, PairsError, claim_output, write_clouds
from tests.training.world import write_dataset

UIDS = ["0a1b2c3d4e5f60718293a4b5c6d7e8f9", "ffeeddccbbaa99887766554433221100", "00112233445566778899aabbccddeeff"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`datasets` keeps folders of the same name apart by their cache only."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    """PointLLM's point files, one of them with a NaN and one too small."""
    folder = tmp_path / "8192_npy"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for uid in UIDS:
        points = np.concatenate([rng.normal(size=(50, 3)), rng.uniform(size=(50, 3))], axis=1).astype(np.float32)
        np.save(folder / f"{uid}_8192.npy", points)
    points[3, 1] = np.nan
    np.save(folder / "broken_8192.npy", points)
    np.save(folder / "small_8192.npy", points[10:20])
    return folder


def load(folder: Path, config: str) -> list[dict]:
    return list(load_dataset(str(folder), config, split="train"))


def errors_of(folder: Path) -> list[tuple]:
    rows = pq.read_table(folder / "errors.parquet").to_pylist()
    return [(row["row"], row["id"], row["reason"]) for row in rows]


def test_shapes_are_found_by_id_or_file_name():
    index = NamedShapes(["000-023/ab.glb", "ab_8192.npy", "x/chair.obj", "y/chair.obj"])
    assert index.find("000-023/ab.glb") == "000-023/ab.glb"
    assert NamedShapes(["000-023/ab.glb"]).find("ab") == "000-023/ab.glb"
    assert NamedShapes(["ab_8192.npy"]).find("ab") == "ab_8192.npy"
    with pytest.raises(LookupError, match="may be 'x/chair.obj' or 'y/chair.obj'"):
        index.find("chair")
    with pytest.raises(LookupError, match="there is no shape '../chair'"):
        index.find("../chair")


def test_cap3d_captions_join_triplets_and_what_cannot_is_recorded(tmp_path: Path, capsys):
    dataset = write_dataset(tmp_path / "triplets", shapes=4)
    (tmp_path / "captions.csv").write_bytes(
        b'00,"A red chair, with four legs."\n'
        b"01,an unquoted caption, with a comma\n"
        b'00,"A chair ""of wood"" in\ntwo lines."\n'
        b'00,"A red chair, with four legs."\n'
        b"nobody,A caption without a shape.\n"
        b"02,\n"
        b"03\n"
        b"03,caf\xe9\n"
        b"\n"
    )
    cap3d.main(
        ["--csv", str(tmp_path / "captions.csv"), "--triplets", str(dataset), "--output", str(tmp_path / "out")]
    )
    assert load(tmp_path / "out", "captions") == [
        {"id": "made/00.obj", "captions": ["A red chair, with four legs.", 'A chair "of wood" in two lines.']},
        {"id": "made/01.obj", "captions": ["an unquoted caption, with a comma"]},
    ]
    assert errors_of(tmp_path / "out") == [
        (5, "00", "duplicate"),
        (6, "nobody", "no_shape"),
        (7, "02", "empty"),
        (8, "03", "malformed"),
        (9, "03", "encoding"),
    ]
    assert "captions of 2 shapes" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="exists: choose another --output"):
        cap3d.main(
            ["--csv", str(tmp_path / "captions.csv"), "--triplets", str(dataset), "--output", str(tmp_path / "out")]
        )


def test_a_header_is_no_caption_and_clouds_come_along(tmp_path: Path, clouds: Path):
    rows = [f"{uid},a caption of {uid[:2]}" for uid in [*UIDS, "broken", "small"]]
    (tmp_path / "captions.csv").write_text("\n".join(["uid,caption", *rows]))
    arguments = ["--csv", tmp_path / "captions.csv", "--clouds", clouds, "--num-points", 40, "--output"]
    cap3d.main([str(word) for word in [*arguments, tmp_path / "out"]])
    captions, shapes = load(tmp_path / "out", "captions"), load(tmp_path / "out", "clouds")
    assert [row["captions"] for row in captions] == [[f"a caption of {uid[:2]}"] for uid in UIDS]
    assert sorted(row["id"] for row in shapes) == sorted(row["id"] for row in captions)
    assert np.shape(shapes[0]["xyz"]) == np.shape(shapes[0]["rgb"]) == (40, 3)
    assert errors_of(tmp_path / "out") == [(0, "broken_8192.npy", "cloud"), (0, "small_8192.npy", "cloud")]
    stored = np.load(clouds / shapes[0]["id"])
    place = {tuple(point[:3]): point[3:] for point in stored}
    for xyz, rgb in zip(shapes[0]["xyz"], shapes[0]["rgb"], strict=True):
        assert np.abs(place[tuple(np.float32(xyz))] * 255 - rgb).max() <= 0.51


def entry(uid: str, *values: str, kind: str | None = "detailed_description") -> dict:
    turns = [{"from": "human" if i % 2 == 0 else "gpt", "value": value} for i, value in enumerate(values)]
    return {"object_id": uid, "conversations": turns} | ({"conversation_type": kind} if kind else {})


def test_pointllm_conversations_become_chats(tmp_path: Path, clouds: Path):
    entries = [
        entry(UIDS[0], "<point>\nWhat is this?", "A chair.", "Its color?", "Red.", kind="multi_round"),
        entry(UIDS[1], "Look at this: <point> What is it?", "A lamp.", kind=None),
        entry(UIDS[0], "What?", "A chair."),
        entry(UIDS[0], "<point><point> Both?", "Chairs."),
        entry(UIDS[0], "<point>", "A chair."),
        entry(UIDS[0], "<point>\nWhat?", ""),
        entry(UIDS[0], "<point>\nWhat?"),
        entry(UIDS[0], "What?", "A <point> chair."),
        entry("nobody", "<point>\nWhat?", "A chair."),
        {"object_id": UIDS[0], "conversations": [{"from": "system", "value": "Be kind."}]},
        {"object_id": UIDS[0], "conversations": [{"from": "gpt", "value": "A chair."}]},
        {"object_id": UIDS[0], "conversations": "text"},
        "no entry",
    ]
    (tmp_path / "instructions.json").write_text(json.dumps(entries))
    arguments = ["--json", tmp_path / "instructions.json", "--clouds", clouds, "--num-points", 50]
    pointllm.main([str(word) for word in [*arguments, "--output", tmp_path / "out"]])
    first, second = load(tmp_path / "out", "conversations")
    assert (first["id"], first["type"]) == (f"{UIDS[0]}_8192.npy", "multi_round")
    assert [message["role"] for message in first["messages"]] == ["user", "assistant"] * 2
    assert first["messages"][0]["content"] == [
        {"type": "point_cloud", "text": None},
        {"type": "text", "text": "What is this?"},
    ]
    assert [part["type"] for part in second["messages"][0]["content"]] == ["text", "point_cloud", "text"]
    assert second["type"] == "simple_description"
    assert [(row, reason) for row, _, reason in errors_of(tmp_path / "out")] == [
        (3, "cloud"),
        (4, "cloud"),
        (5, "empty"),
        (6, "empty"),
        (7, "order"),
        (8, "cloud"),
        (9, "no_shape"),
        (10, "malformed"),
        (11, "order"),
        (12, "malformed"),
        (13, "malformed"),
    ]
    pointllm.main([str(word) for word in [*arguments, "--types", "multi_round", "--output", tmp_path / "some"]])
    assert len(load(tmp_path / "some", "conversations")) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is no JSON"), ("[" * 100_000, "is no JSON"), ("{}", "must hold a list"), ("[]", "the file is empty")],
)
def test_files_that_are_no_instructions(tmp_path: Path, clouds: Path, content: str, message: str):
    (tmp_path / "instructions.json").write_text(content)
    with pytest.raises(SystemExit, match=message):
        pointllm.main(
            ["--json", str(tmp_path / "instructions.json"), "--clouds", str(clouds), "--output", str(tmp_path / "out")]
        )
    assert not (tmp_path / "out").exists()


def test_shapes_must_be_named_once(tmp_path: Path):
    (tmp_path / "captions.csv").write_text("a,b\n")
    arguments = ["--csv", str(tmp_path / "captions.csv"), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match="either --triplets or --clouds"):
        cap3d.main(arguments)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="has no point file"):
        cap3d.main([*arguments, "--clouds", str(tmp_path / "empty")])


def test_a_stopped_run_goes_on_and_another_begins_anew(tmp_path: Path):
    class StoppedError(Exception):
        pass

    with pytest.raises(StoppedError), claim_output(tmp_path / "out", {"seed": 0}) as folder:
        (folder / "half").write_text("done")
        raise StoppedError
    assert not (tmp_path / "out").exists()
    with pytest.raises(StoppedError), claim_output(tmp_path / "out", {"seed": 0}) as folder:
        assert (folder / "half").exists()
        raise StoppedError
    with claim_output(tmp_path / "out", {"seed": 1}) as folder:
        assert not (folder / "half").exists()
        (folder / "whole").write_text("")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]
    with pytest.raises(PairsError, match="exists"), claim_output(tmp_path / "out", {"seed": 1}):
        pass


@pytest.mark.parametrize(
    ("name", "colors", "caption"),
    [
        ("Armchair", ["brown", "white"], "a brown and white armchair"),
        ("Table_Big 2", ["brown"], "a brown big table"),
        ("rock 3", [], "a rock"),
        ("Apple_Harvested", [], "an apple harvested"),
        ("White door", ["white"], "a white door"),
        ("Books on the shelf", ["orange"], "orange books on the shelf"),
        ("Glass", ["green"], "a green glass"),
        ("Rubik's cube", ["black"], "a black rubik's cube"),
        ("houses first age 1 level 2", [], "a houses first age"),
        ("007", ["red"], ""),
    ],
)
def test_descriptions(name: str, colors: list[str], caption: str):
    assert describing.describe_shape(name, colors) == caption


def test_shapes_are_described_by_the_colors_of_their_points(tmp_path: Path):
    dataset = write_dataset(tmp_path / "triplets", shapes=6)
    describing.main(["--triplets", str(dataset), "--output", str(tmp_path / "out")])
    rows = {row["id"]: row["captions"] for row in load(tmp_path / "out", "captions")}
    # the colors of the made-up shapes are 40, 120 and 200 of 255 in all channels, with some noise
    assert rows["made/00.obj"] == ["a black chair"] and rows["made/01.obj"] == ["a gray lamp"]
    assert errors_of(tmp_path / "out") == []


def test_clouds_far_from_the_origin_keep_their_shape_in_float32(tmp_path):
    local = np.random.default_rng(0).random((40, 3))
    np.savetxt(tmp_path / "far.xyz", local + [500_000, 5_000_000, 0], fmt="%.6f")
    np.savetxt(tmp_path / "near.xyz", local + [0, 9, 0], fmt="%.6f")
    failures = write_clouds(tmp_path / "out", tmp_path, ["far.xyz", "near.xyz"], 40, seed=0)
    assert not failures
    far, near = load_dataset("parquet", data_dir=str(tmp_path / "out" / "clouds"), split="train").with_format("numpy")
    np.testing.assert_allclose(np.ptp(far["xyz"], axis=0), np.ptp(local, axis=0), atol=1e-5)
    np.testing.assert_allclose(near["xyz"], local + [0, 9, 0], atol=1e-5)  # as the source has it
