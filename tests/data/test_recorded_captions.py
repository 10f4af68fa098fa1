"""Every layout of captions that were made elsewhere, and every fault of a file of them."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modeling_ulip2.data.recorded_captions import RecordedCaptionsError, read_recorded_captions


def write_lines(path, rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


ROWS = {
    "one": [{"id": "a/chair.glb", "caption": " a  red\nchair "}],
    "several": [{"id": "a/chair.glb", "captions": ["a red chair", "", "a red chair"]}],
    "columns": [{"object_id": "a/chair.glb", "short": "a red chair", "long": None, "noun": "chair"}],
    "rows": [{"uid": "chair", "text": "a red chair"}, {"uid": "chair", "text": "a red chair"}],
}


@pytest.mark.parametrize("write", [write_lines, write_parquet])
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_captions_of_an_object_are_those_of_each_view(tmp_path, write, rows):
    suffix = {"write_lines": "jsonl", "write_parquet": "parquet"}[write.__name__]
    recorded = read_recorded_captions(write(tmp_path / f"captions.{suffix}", rows))
    found = recorded.find("a/chair.glb")
    assert found.for_views(2) == [["a red chair"], ["a red chair"]] and found.num_views == 0
    assert recorded.find("a/table.glb") is None and recorded.count == 1


@pytest.mark.parametrize("write", [write_lines, write_parquet])
def test_captions_of_views_come_before_those_of_the_object(tmp_path, write):
    rows = [
        {"id": "a.glb", "view": 2, "captions": ["its back"]},
        {"id": "a.glb", "view": None, "captions": ["a chair"]},
        {"id": "a.glb", "view": 0, "captions": ["its front", "a seat"]},
    ]
    suffix = {"write_lines": "jsonl", "write_parquet": "parquet"}[write.__name__]
    recorded = read_recorded_captions(write(tmp_path / f"c.{suffix}", rows))
    found = recorded.find("a.glb")
    assert found.num_views == 3
    assert found.for_views(4) == [
        ["its front", "a seat", "a chair"],
        ["a chair"],
        ["its back", "a chair"],
        ["a chair"],
    ]
    assert found.all() == ["a chair", "its back", "its front", "a seat"]


@pytest.mark.parametrize("write", [write_lines, write_parquet])
def test_a_list_for_each_view(tmp_path, write):
    rows = [{"id": "a.glb", "captions": [["its front"], None, ["its back", "a seat"]]}]
    suffix = {"write_lines": "jsonl", "write_parquet": "parquet"}[write.__name__]
    found = read_recorded_captions(write(tmp_path / f"c.{suffix}", rows)).find("a.glb")
    assert found.for_views(3) == [["its front"], [], ["its back", "a seat"]]


def test_floats_of_pandas_as_views(tmp_path):
    rows = [{"id": "a", "view": 1.0, "caption": "back"}, {"id": "a", "view": float("nan"), "caption": "all"}]
    found = read_recorded_captions(write_parquet(tmp_path / "c.parquet", rows)).find("a")
    assert found.for_views(2) == [["all"], ["back", "all"]]


def test_csv_with_a_header(tmp_path):
    lines = ["\ufeffid,view,caption,short,noun", 'a.glb,,"a chair, red",seat,chair', "a.glb,1,its back,,chair", ""]
    found = read_recorded_captions(write_lines(tmp_path / "c.csv", lines)).find("a.glb")
    assert found.for_views(2) == [["a chair, red", "seat"], ["its back", "a chair, red", "seat"]]


def test_cap3d_has_no_header_and_commas_without_quotes(tmp_path):
    lines = ["0b3a,a red chair, with arms", '0c77,"a table, ""round"""', "0b3a,a seat"]
    recorded = read_recorded_captions(write_lines(tmp_path / "Cap3D_automated_Objaverse_full.csv", lines))
    assert recorded.find("000-023/0b3a.glb").for_views(1) == [["a red chair, with arms", "a seat"]]
    assert recorded.find("0c77").for_views(1) == [['a table, "round"']]


def test_named_columns_are_the_only_ones(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", [{"id": "a", "caption": "no", "gpt": "a chair"}])
    assert read_recorded_captions(path, ["gpt"]).find("a").all() == ["a chair"]
    with pytest.raises(RecordedCaptionsError, match=r"line 1: there is no caption \(a text under llava\)"):
        read_recorded_captions(path, ["llava"])
    for table in (
        write_lines(tmp_path / "c.csv", ["id,gpt", "a,b"]),
        write_parquet(tmp_path / "c.parquet", [{"id": "a", "gpt": "b"}]),
    ):
        with pytest.raises(RecordedCaptionsError, match="no column for llava; its columns are id, gpt"):
            read_recorded_captions(table, ["llava"])
        with pytest.raises(RecordedCaptionsError, match="and captions; its columns are id, gpt"):
            read_recorded_captions(table)
    headless = write_lines(tmp_path / "headless.csv", ["0b3a,a chair"])
    with pytest.raises(RecordedCaptionsError, match="has no header"):
        read_recorded_captions(headless, ["gpt"])


GOOD = '{"id": "a", "caption": "a chair"}'
FAULTS = {
    "no json": ("{", r"line 2: it is no JSON \("),
    "deep": ("[" * 200_000, r"line 2: it is no JSON \("),
    "no object": ("[1]", "line 2: it is no JSON object"),
    "no id": ('{"caption": "a chair"}', "line 2: there is no id"),
    "empty id": ('{"id": " ", "caption": "a chair"}', "line 2: there is no id"),
    "number as id": ('{"id": 7, "caption": "a chair"}', "line 2: there is no id"),
    "no caption": ('{"id": "a"}', "line 2: there is no caption"),
    "empty caption": ('{"id": "a", "caption": " "}', "line 2: there is no caption"),
    "empty list": ('{"id": "a", "captions": [[], []]}', "line 2: there is no caption"),
    "number": ('{"id": "a", "caption": 7}', "line 2: 'caption' must be a text or a list of texts, not 7"),
    "number in list": ('{"id": "a", "captions": ["b", 7]}', "line 2: 'captions' must be a text or a list of texts"),
    "mixed list": ('{"id": "a", "captions": [["b"], 7]}', "line 2: 'captions' must be a text or a list of texts"),
    "nested twice": ('{"id": "a", "captions": [[["b"]]]}', "line 2: 'captions' must be a text or a list of texts"),
    "object": ('{"id": "a", "captions": {"0": "b"}}', "line 2: 'captions' must be a text or a list of texts"),
    "view below 0": ('{"id": "a", "caption": "b", "view": -1}', "line 2: 'view' must be a number from 0, not -1"),
    "view a word": ('{"id": "a", "caption": "b", "view": "left"}', "line 2: 'view' must be a number from 0"),
    "view true": ('{"id": "a", "caption": "b", "view": true}', "line 2: 'view' must be a number from 0"),
    "view 1.5": ('{"id": "a", "caption": "b", "view": 1.5}', "line 2: 'view' must be a number from 0"),
    "huge view": ('{"id": "a", "caption": "b", "view": 99999999999}', "line 2: 'view' must be a number from 0"),
    "views of a view": ('{"id": "a", "captions": [["b"]], "view": 1}', "line 2: 'captions' has a list for each view"),
}


@pytest.mark.parametrize("line, message", FAULTS.values(), ids=FAULTS)
def test_a_malformed_line_is_named(tmp_path, line, message):
    path = write_lines(tmp_path / "c.jsonl", [GOOD, line])
    with pytest.raises(RecordedCaptionsError, match=f"^{re.escape(str(path))}, {message}"):
        read_recorded_captions(path)


def test_many_faults_are_counted(tmp_path):
    path = write_lines(tmp_path / "c.jsonl", [GOOD, *["x"] * 9])
    with pytest.raises(RecordedCaptionsError, match=r"line 6: .*; and 4 more$"):
        read_recorded_captions(path)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(GOOD.encode() + b'\n{"id": "b", "caption": "caf\xe9"}\n')
    with pytest.raises(RecordedCaptionsError, match=r"c\.jsonl, line 2: it is not UTF-8"):
        read_recorded_captions(tmp_path / "c.jsonl")
    (tmp_path / "c.csv").write_bytes(b"a,a chair\nb,caf\xe9\n")
    with pytest.raises(RecordedCaptionsError, match=r"c\.csv, line 2: 'caption' is not UTF-8"):
        read_recorded_captions(tmp_path / "c.csv")


def test_an_endless_line_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("modeling_ulip2.data.recorded_captions.MAX_LINE", 100)
    path = write_lines(tmp_path / "c.jsonl", [GOOD, json.dumps({"id": "b", "caption": "long " * 50})])
    with pytest.raises(RecordedCaptionsError, match="line 2: it has more than"):
        read_recorded_captions(path)


@pytest.mark.parametrize(
    "lines, message",
    [
        (["id,caption", "a"], "line 2: it has 1 cells, the header 2"),
        (["id,caption", "a,b,c"], "line 2: it has 3 cells, the header 2"),
        (["id,caption,view", "a,b,first"], "line 2: 'view' must be"),
        (["0b3a"], "line 1: expected uid,caption"),
        (["0b3a,"], "line 1: there is no caption"),
        ([f"0b3a,{'x' * 200_000}"], "line 1: it is no CSV"),
    ],
)
def test_faults_of_tables(tmp_path, lines, message):
    with pytest.raises(RecordedCaptionsError, match=message):
        read_recorded_captions(write_lines(tmp_path / "c.csv", lines))


def test_files_that_are_none(tmp_path):
    with pytest.raises(RecordedCaptionsError, match="there is no file of captions"):
        read_recorded_captions(tmp_path / "c.csv")
    with pytest.raises(RecordedCaptionsError, match=r"are read from \.jsonl, \.csv, \.parquet, not '\.txt'"):
        read_recorded_captions(tmp_path / "c.txt")
    for name in ("c.jsonl", "c.csv"):
        (tmp_path / name).write_text("\n")
        with pytest.raises(RecordedCaptionsError, match="holds no captions"):
            read_recorded_captions(tmp_path / name)
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and so on")
    with pytest.raises(RecordedCaptionsError, match="is no parquet file, or damaged"):
        read_recorded_captions(tmp_path / "c.parquet")


def test_coverage(tmp_path):
    path = write_lines(tmp_path / "c.csv", ["a/chair.glb,a chair", "lamp,a lamp", "sofa,a sofa"])
    recorded = read_recorded_captions(path)
    assert recorded.coverage(["a/chair.glb", "b/lamp.obj", "b/chair.glb"]) == (["b/chair.glb"], ["sofa"])
    with pytest.raises(RecordedCaptionsError, match="'lamp' may be 'a/lamp.glb' or 'b/lamp.glb'"):
        recorded.coverage(["a/lamp.glb", "b/lamp.glb"])
