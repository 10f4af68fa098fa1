"""`build_triplets.py --captioner recorded`: captions made elsewhere, alone and beside other captioners."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from modeling_ulip2.building.captioners.recorded import RecordedCaptioner
from modeling_ulip2.building.meshes import main
from modeling_ulip2.data.reading import TripletDataset, load_config, read_triplets

from .shapes import build_arguments

MADE_BY = "a large multimodal model that saw two renderings"


@pytest.fixture
def captions(tmp_path):
    rows = [{"id": f"boxes/Box{letter}.obj", "short": f"box {letter}", "alt": "a crate"} for letter in "ABCD"]
    rows.append({"id": "boxes/BoxE.obj", "view": 7, "caption": "its eighth side"})
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def table(folder, name):
    return {row["id"]: row for row in pq.read_table(folder / name).to_pylist()}


def test_recorded_captions_beside_names(meshes, tower, captions, tmp_path, capsys):
    output = tmp_path / "out"
    more = ["--captions", str(captions), "--captions-made-by", MADE_BY, "--metadata-captions", "1", "--no-features"]
    arguments = build_arguments(meshes[0], output, tower, "--captioner", "recorded", "metadata", *more)
    main(arguments)
    said = capsys.readouterr().out
    missing = 1 + len(meshes[1])
    assert (
        f"captions.jsonl has captions of 5 of {6 + len(meshes[1])} objects; it lacks {missing}: boxes/BoxF.obj" in said
    )
    triplets = table(output, "triplets")
    captions_of = triplets["boxes/BoxA.obj"]["captions"][2]
    assert len(captions_of) == 3 and {"a crate", "box A"} < set(captions_of)  # and its name in a prompt
    assert len(triplets["boxes/BoxF.obj"]["captions"][0]) == 1  # its name
    # what lacks a caption is named, and captions of pictures that are not there are no triplet
    assert table(output, "warnings.parquet")["boxes/BoxF.obj"]["message"] == "captions.jsonl has no caption of it"
    error = table(output, "errors.parquet")["boxes/BoxE.obj"]
    assert error["reason"] == "recorded_views" and "captions of 8 views of it, but there are 3" in error["message"]
    card = (output / "README.md").read_text()
    assert f"- `recorded` (file: captions.jsonl, made by: {MADE_BY})" in card
    manifest = json.loads((output / "manifest.json").read_text())
    described = manifest["stages"]["RecordedCaptioner"]["file"]
    assert described["objects"] == 5 and described["captions"] == 9
    assert manifest["settings"]["recorded_captions"]["sha256"] == described["sha256"]

    # other captions are another dataset
    captions.write_text(captions.read_text() + '{"id": "boxes/BoxF.obj", "caption": "the last box"}\n')
    with pytest.raises(SystemExit, match="was begun with other settings: recorded_captions was"):
        main(arguments)


def test_alone_an_object_without_a_caption_is_no_triplet(meshes, tower, captions, tmp_path):
    main(build_arguments(meshes[0], tmp_path / "out", tower, "--captioner", "recorded", "--captions", str(captions)))
    assert table(tmp_path / "out", "errors.parquet")["boxes/BoxF.obj"]["reason"] == "no_captions"
    assert len(table(tmp_path / "out", "triplets")) == 4


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"id": "boxes/BoxA.obj"}\n', r"captions\.jsonl, line 1: there is no caption"),
        ('{"id": "cups/CupA.obj", "caption": "a cup"}\n', "has captions of none of the .* it has 'cups/CupA.obj'"),
    ],
)
def test_a_file_that_does_not_fit_ends_the_build_before_it_begins(meshes, tower, tmp_path, text, message):
    (tmp_path / "captions.jsonl").write_text(text)
    more = ["--captioner", "recorded", "--captions", str(tmp_path / "captions.jsonl")]
    with pytest.raises(SystemExit, match=message):
        main(build_arguments(meshes[0], tmp_path / "out", tower, *more))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "more, message",
    [
        (["--captioner", "recorded"], "it goes with --captioner recorded"),
        (["--captions", __file__], "it goes with --captioner recorded"),
        (["--captioner", "recorded", "--captions", "nowhere.jsonl"], "there is no file nowhere.jsonl"),
    ],
)
def test_the_captioner_and_its_file_go_together(meshes, tower, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit):
        main(build_arguments(meshes[0], tmp_path / "out", tower, *more))
    assert message in capsys.readouterr().err


def test_a_failed_object_stays_failed(captions):
    stage = RecordedCaptioner(str(captions))
    batch = {"id": ["boxes/BoxA.obj", "x"], "error": ["bad", None], "message": ["why", None]}
    batch |= {"views": [None, [{}, {}]], "warnings": [None, ["w"]]}
    result = stage(batch)
    assert result["error"] == ["bad", None] and result["captions"] == [None, [[], []]]
    assert result["warnings"] == [None, ["w", "captions.jsonl has no caption of it"]]


def test_a_training_chooses_among_captioners(meshes, tower, captions, tmp_path):
    more = ["--captioner", "recorded", "metadata", "--captions", str(captions), "--caption-sources"]
    main(build_arguments(meshes[0], tmp_path / "out", tower, *more, "--limit", "4"))
    rows = table(tmp_path / "out", "triplets")
    for row in rows.values():
        for texts, makers in zip(row["captions"], row["caption_sources"], strict=True):
            assert sorted(makers) == ["metadata"] * 6 + ["recorded"] * 2
            said = {text for text, maker in zip(texts, makers, strict=True) if maker == "recorded"}
            assert said == {"a crate", f"box {row['id'][-5]}"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| caption_sources | the captioner that said each caption first" in card

    triplets = read_triplets(str(tmp_path / "out"))
    chosen = TripletDataset(triplets, None, ["recorded"])[0]
    assert {text for own in chosen["captions"] for text in own} == {"a crate", "box A"}
    features = load_config(str(tmp_path / "out"), "features")
    embeds = TripletDataset(triplets, features, ["recorded"])[0]["text_embeds"]
    whole = TripletDataset(triplets, features)[0]["text_embeds"]
    for view, makers in enumerate(rows[triplets[0]["id"]]["caption_sources"]):
        kept = [place for place, maker in enumerate(makers) if maker == "recorded"]
        np.testing.assert_array_equal(embeds[view], whole[view][kept])
    with pytest.raises(ValueError, match="have no caption of labels: there are those of metadata, recorded"):
        TripletDataset(triplets, features, ["labels"])
    with pytest.raises(ValueError, match="build them with --caption-sources"):
        TripletDataset(triplets.remove_columns("caption_sources"), features, ["recorded"])
