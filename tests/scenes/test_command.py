"""`ulip2 scene`, through `main`: scans of all kinds, good and bad."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.cli import main
from modeling_ulip2.scenes.results import write_results
from tests.evaluation.world import World, build_world

from .rooms import RoomBuilder, furnished

OBJECTS = 11  # with walls, floor and ceiling


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"), shapes=3)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A room as scanners write it, z up, in a file, beside masks of its objects."""
    folder = tmp_path_factory.mktemp("scans")
    scene = furnished(density=500).scene()
    write_results(folder / "y_up.ply", scene, [], scene.rgb)
    turned = furnished(density=500).scene()
    turned.xyz = np.ascontiguousarray(scene.xyz[:, [0, 2, 1]] * np.float32([1, -1, 1]))
    write_results(folder / "room.ply", turned, [], scene.rgb)
    masks = np.stack([scene.instance == number for number in range(len(scene.categories))])
    np.savez_compressed(folder / "masks.npz", masks=masks, scores=np.linspace(1, 0.5, len(masks)))
    return folder / "room.ply"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_labels_name_given_masks(world: World, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = ["--masks", room.with_name("masks.npz"), "--model", world.model, "--other_words"]
    outputs = [tmp_path / f"out{suffix}" for suffix in (".json", ".ply", ".png", ".npz")]

    assert run("scene", room, "--labels", "chair", "lamp", *given, "-o", *outputs) == 0

    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    told = json.loads(outputs[0].read_text())
    assert lines[0].split()[:2] == ["score", "label"] and len(lines) == 1 + len(told["objects"]) + len(outputs)
    assert {thing["label"] for thing in told["objects"]} <= {"chair", "lamp"} and told["labels"] == ["chair", "lamp"]
    assert "z is taken as up" in captured.err and told["warnings"]
    assert all(output.stat().st_size for output in outputs)
    # what was found is taken as proposals again
    assert run("scene", room, "--labels", "chair", "lamp", *given[2:], "--masks", outputs[3]) == 0


def test_finding_a_text_by_proposals_of_our_own(
    world: World, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    output = tmp_path / "found.json"
    options = ["--model", world.model, "--top_k", "3", "-o", output]
    assert run("scene", room.with_name("y_up.ply"), "--find", "a red chair", *options, "--up-axis", "y") == 0
    captured = capsys.readouterr()
    told = json.loads(output.read_text())
    assert told["text"] == "a red chair" and 1 <= len(told["objects"]) <= 3
    assert "warning" not in captured.err
    scores = [thing["score"] for thing in told["objects"]]
    assert scores == sorted(scores, reverse=True)


def test_says_when_nothing_fits(world: World, room: Path, capsys: pytest.CaptureFixture[str]):
    given = ["--masks", room.with_name("masks.npz"), "--model", world.model]
    assert run("scene", room, "--labels", "chair", *given, "--threshold", "1") == 0
    captured = capsys.readouterr()
    assert captured.out == "" and f"of {OBJECTS} proposals none is one of the labels" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{room}"], "give --labels to name objects, or --find"),
        (["{room}", "--labels", "chair", "--find", "a chair"], "one of the two"),
        (["{room}", "--labels", "chair", "-o", "out.obj"], "ends in none of"),
        (["{room}", "--labels", "chair", "chair"], "'chair' twice"),
        (["{room}", "--labels", "chair", "--threshold", "2"], "between 0 and 1"),
        (["missing.ply", "--labels", "chair"], "no such file"),
        (["empty.ply", "--labels", "chair"], "empty.ply"),
        (["few.ply", "--labels", "chair"], "too few"),
        (["announced.ply", "--labels", "chair"], "100000000 rows"),
        (["wide.ply", "--labels", "chair", "--unit", "m"], "points far outside"),
        (["{room}", "--labels", "chair", "--masks", "{other}"], "(3, 200)"),
        (["{room}", "--labels", "chair", "--masks", "missing.npz"], "missing.npz"),
        (["{room}", "--labels", "chair", "--template", "no place"], "needs one {{}}"),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    arguments: list[str],
    words: str,
    world: World,
    room: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    Path("empty.ply").write_bytes(b"")
    few = RoomBuilder(density=1)
    few.object("dot")
    few.rectangle((0, 0, 0), (2, 0, 0), (0, 0, 2), (9, 9, 9), (0, 1, 0))
    write_results(Path("few.ply"), few.scene(), [], few.scene().rgb)
    head = room.read_bytes()[:400].split(b"end_header")[0]
    count = head.split(b"element vertex ")[1].split(b"\n")[0]
    Path("announced.ply").write_bytes(head.replace(count, b"100000000") + b"end_header\n")
    wide = furnished(density=50).scene()
    wide.xyz[0] += 10_000_000
    write_results(Path("wide.ply"), wide, [], wide.rgb)
    np.savez("other.npz", masks=np.zeros((3, 200), bool))
    places = {"room": room, "other": "other.npz"}
    given = [argument.format(**places) for argument in arguments]
    try:
        status = run("scene", *given, "--model", world.model)
    except SystemExit as exit:  # of argparse
        status = exit.code
    assert status == 2
    shown = capsys.readouterr().err
    assert words.format() in shown.replace(",", "") or words.format() in shown


def test_a_scan_in_centimeters_with_points_that_are_nan(
    world: World, room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    scene = furnished(density=300).scene()
    scene.xyz *= 100
    scene.xyz[::50] = np.nan
    write_results(tmp_path / "cm.ply", scene, [], scene.rgb)
    options = ["--up-axis", "y", "--model", world.model, "--other_words", "-o", tmp_path / "out.json"]
    assert run("scene", tmp_path / "cm.ply", "--labels", "chair", "lamp", *options) == 0
    told = json.loads((tmp_path / "out.json").read_text())
    assert any("centimeters" in warning for warning in told["warnings"])
    assert any("NaN" in warning for warning in told["warnings"])
    highest = max(thing["box"][1][1] for thing in told["objects"])
    assert 0.5 < highest < 2.6
