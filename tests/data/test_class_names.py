from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from modeling_ulip2.evaluation import load_class_names, load_templates

VECTORS = Path(__file__).parents[1] / "vectors" / "zero_shot"


@pytest.mark.parametrize(
    ("name", "size", "some"),
    [
        ("modelnet40", 40, {"night stand": 23, "xbox": 39}),
        ("scanobjectnn", 15, {"bag": 0, "toilet": 14}),
        ("shapenet55", 55, {"airplane": 0, "washer": 54}),
        ("objaverse_lvis", 1156, {"Band_Aid": 0, "zucchini": 1155}),
    ],
)
def test_class_names(name: str, size: int, some: dict[str, int]):
    names = load_class_names(name)
    assert len(names) == len(set(names)) == size
    assert {known: names.index(known) for known in some} == some


def test_modelnet40_is_in_the_order_of_the_reference():
    assert load_class_names("modelnet40") == json.loads((VECTORS / "modelnet40.json").read_text())["labels"]


def test_templates():
    templates = load_templates("modelnet40_64")
    assert len(templates) == len(set(templates)) == 64
    assert all(template.count("{}") == 1 for template in templates)
    assert templates[0] == "a point cloud model of {}."


def test_a_caller_cannot_spoil_the_lists():
    load_class_names("modelnet40").clear()
    load_templates().clear()
    assert len(load_class_names("modelnet40")) == 40 and len(load_templates()) == 64


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'modelnet' is not in class_names.json; it has modelnet40, scanobjectnn"):
        load_class_names("modelnet")


@pytest.mark.parametrize(("package", "file"), [("data", "class_names.json"), ("towers.data", "templates.json")])
def test_every_list_names_its_source(package: str, file: str):
    data = files(f"modeling_ulip2.{package}")
    notice = data.joinpath("NOTICE.md").read_text(encoding="utf-8")
    for name, entry in json.loads(data.joinpath(file).read_text(encoding="utf-8")).items():
        assert f"`{file}`: `{name}`" in notice
        assert entry["source"] and entry["license"] in notice
