"""The benchmarks' scripts, on fabricated files of the layouts that circulate: whole, partial, wrong, hostile."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import modelnet40
import numpy as np
import objaverse_lvis
import pytest
import scanobjectnn
from datasets import ClassLabel, load_dataset

from modeling_ulip2.data.benchmarks import find_benchmarks, read_benchmark, read_benchmark_manifest
from modeling_ulip2.data.reading import decode_row
from modeling_ulip2.evaluation import load_class_names

from .benchmark_files import (
    POINTS,
    object_array,
    write_colored_10k,
    write_dat,
    write_h5,
    write_lvis_cloud,
    write_texts,
)

IDS = ["airplane_0627", "night_stand_0201", "xbox_0104"]
LABELS = [0, 23, 39]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output"


def convert(main: Callable, source: Path, output: Path, *more: str) -> None:
    main(["--source", str(source), "--output", str(output), "--allow-partial", *more])


def refusal(main: Callable, source: Path, output: Path, *more: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["--source", str(source), "--output", str(output), *more])
    assert isinstance(stopped.value.code, str)
    return stopped.value.code


def test_modelnet40_colored_10k(source: Path, output: Path):
    xyz = write_colored_10k(source, ["airplane", "night_stand", "xbox"])
    convert(modelnet40.main, source, output)
    rows = load_dataset(str(output), "colored_10k", split="test").with_format("numpy")
    assert rows.features["label"] == ClassLabel(names=load_class_names("modelnet40"))
    assert list(rows["id"]) == ["airplane_0000", "night_stand_0001", "xbox_0002"]
    assert list(rows["label"]) == LABELS
    np.testing.assert_array_equal(np.stack([row["xyz"] for row in rows]), xyz)
    rgb = decode_row(rows.with_format("arrow")[0])["rgb"]
    assert rgb.dtype == np.uint8 and (rgb == 100).all()
    assert "partial: 2,468 expected" in (output / "README.md").read_text()
    record = read_benchmark_manifest(output)["configs"]["colored_10k"]["splits"]["test"]
    assert record["shapes"] == 3 and record["expected"] == [2468] and record["classes_with_shapes"] == 3
    assert find_benchmarks(output.parent) == [output]


def test_modelnet40_dat(source: Path, output: Path):
    expected = {split: write_dat(source, split, IDS) for split in ("train", "test")}
    convert(modelnet40.main, source, output)
    for split, xyz in expected.items():
        rows = read_benchmark(output, "fps_8192", split).with_format("numpy")
        assert list(rows["id"]) == IDS and list(rows["label"]) == LABELS and "rgb" not in rows.column_names
        np.testing.assert_array_equal(np.stack([row["xyz"] for row in rows]), xyz)


def test_modelnet40_text_and_h5_and_meshes_side_by_side(source: Path, output: Path):
    texts = write_texts(source, "test", IDS)
    points = write_h5(source / "modelnet40_ply_hdf5_2048" / "ply_data_test0.h5", np.array([[5], [1]], dtype=np.uint8))
    more = write_h5(source / "modelnet40_ply_hdf5_2048" / "ply_data_test1.h5", np.array([[39]], dtype=np.uint8), 5)
    mesh = source / "ModelNet40" / "night_stand" / "test" / "night_stand_0201.off"
    mesh.parent.mkdir(parents=True)
    mesh.write_text(
        "OFF4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 9\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"
    )  # as ModelNet glues it
    convert(modelnet40.main, source, output)
    rows = load_dataset(str(output), "normal_resampled", split="test").with_format("numpy")
    assert list(rows["id"]) == IDS and list(rows["label"]) == LABELS
    np.testing.assert_allclose(np.stack([row["xyz"] for row in rows]), texts, atol=1e-6)
    rows = load_dataset(str(output), "h5_2048", split="test").with_format("numpy")
    assert list(rows["label"]) == [5, 1, 39]
    np.testing.assert_array_equal(np.stack([row["xyz"] for row in rows]), np.concatenate([points, more]))
    rows = load_dataset(str(output), "off", split="test").with_format("numpy")
    assert list(rows["id"]) == ["night_stand_0201"] and list(rows["label"]) == [23]
    xyz = rows[0]["xyz"]
    assert xyz.shape == (10_000, 3)
    assert xyz[:, 1].max() > 8 and xyz[:, 2].min() > -1.01 and xyz[:, 2].max() <= 0  # what was up is up, not mirrored
    with pytest.raises(ValueError, match=r"holds the configs h5_2048, normal_resampled, off: choose one"):
        read_benchmark(output)


def test_counts_are_checked(source: Path, output: Path):
    write_colored_10k(source, ["airplane"])
    message = refusal(modelnet40.main, source, output)
    assert "holds 1 shapes, the benchmark has 2,468" in message and "--allow-partial" in message
    write_h5(source / "main_split" / "test_objectdataset_augmentedrot_scale75.h5", np.zeros(4, dtype=np.int64))
    assert "the benchmark has 2,882" in refusal(scanobjectnn.main, source, output)
    assert not output.exists()


def test_the_order_of_the_classes_is_checked(source: Path, output: Path):
    write_dat(source, "test", IDS)
    names = source / "modelnet40_shape_names.txt"
    lines = names.read_text().splitlines()
    names.write_text("\n".join([*lines[:2], lines[3], lines[2], *lines[4:]]))
    assert "has 'bench' in place 2, where the benchmark's 40 classes have 'bed'" in refusal(
        modelnet40.main, source, output, "--allow-partial"
    )
    names.write_text("\n".join(lines))
    (source / "modelnet40_test.txt").write_text("\n".join([IDS[0], IDS[2], IDS[1]]))
    message = refusal(modelnet40.main, source, output, "--allow-partial")
    assert "shape 1 has the label 23 (night stand), but modelnet40_test.txt names it xbox_0104" in message
    (source / "modelnet40_test.txt").unlink()
    convert(modelnet40.main, source, output)
    assert "the order of the classes was not checked" in (output / "README.md").read_text()
    write_colored_10k(source, ["airplane", "spaceship"])
    assert "'spaceship' is none of ModelNet40's 40 classes" in refusal(
        modelnet40.main, source, output, "--allow-partial", "--configs", "colored_10k"
    )


class Attack:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_pickles_are_not_executed(source: Path, output: Path, tmp_path: Path):
    sign = tmp_path / "executed"
    write_dat(source, "test", IDS)
    (source / "modelnet40_test_8192pts_fps.dat").write_bytes(pickle.dumps([[Attack(sign)], [np.array([0])]]))
    assert "asks for posix.mkdir, which was not run" in refusal(modelnet40.main, source, output, "--allow-partial")
    write_colored_10k(source, ["airplane"])
    np.save(source / "modelnet40_colored_10k_pc.npy", object_array([{"xyz": Attack(sign)}]), allow_pickle=True)
    assert "was not run" in refusal(modelnet40.main, source, output, "--allow-partial", "--configs", "colored_10k")
    np.save(source / "xyz_label.npy", np.array({"xyz": Attack(sign), "label": 1}, dtype=object), allow_pickle=True)
    assert "was not run" in refusal(scanobjectnn.main, source, output, "--allow-partial")
    assert not sign.exists()


def test_truncated_files(source: Path, output: Path):
    write_dat(source, "test", IDS)
    path = source / "modelnet40_test_8192pts_fps.dat"
    path.write_bytes(path.read_bytes()[:1000])
    assert f"{path}: it announces 2664 bytes" in refusal(modelnet40.main, source, output, "--allow-partial")
    path = source / "main_split" / "test_objectdataset.h5"
    write_h5(path, np.zeros(40, dtype=np.int64))
    path.write_bytes(path.read_bytes()[:5000])
    assert "is no HDF5 file, or is truncated" in refusal(scanobjectnn.main, source, output, "--allow-partial")


def test_scanobjectnn_variants(source: Path, output: Path):
    expected = {}
    for seed, (config, file) in enumerate(
        {
            "OBJ_BG": "main_split/test_objectdataset.h5",
            "OBJ_ONLY": "main_split_nobg/test_objectdataset.h5",
            "PB_T25": "main_split/test_objectdataset_augmented25_norot.h5",
            "PB_T25_R": "main_split/test_objectdataset_augmented25rot.h5",
            "PB_T50_R": "main_split/test_objectdataset_augmentedrot.h5",
            "PB_T50_RS": "main_split/test_objectdataset_augmentedrot_scale75.h5",
            "PB_T50_RS_nobg": "main_split_nobg/test_objectdataset_augmentedrot_scale75.h5",
        }.items()
    ):
        expected[config] = write_h5(source / "h5_files" / file, np.array([14, seed]), seed)
    write_h5(source / "h5_files" / "main_split" / "training_objectdataset.h5", np.arange(15), 99)
    convert(scanobjectnn.main, source, output)
    assert set(read_benchmark_manifest(output)["configs"]) == set(expected)
    for seed, (config, xyz) in enumerate(expected.items()):
        rows = load_dataset(str(output), config, split="test").with_format("numpy")
        assert list(rows["label"]) == [14, seed] and rows["id"][0] == f"{config}/test/00000"
        np.testing.assert_array_equal(np.stack([row["xyz"] for row in rows]), xyz)
    assert rows.features["label"].int2str(14) == "toilet"
    assert len(read_benchmark(output, "OBJ_BG", "train")) == 15
    with pytest.raises(ValueError, match=r"no complete split 'train' of 'PB_T25'; it holds OBJ_BG \(train\)"):
        read_benchmark(output, "PB_T25", "train")


def test_scanobjectnn_of_openshape(source: Path, output: Path):
    xyz = np.random.default_rng(0).normal(size=(3, POINTS, 3)).astype(np.float32)
    content = {"xyz": xyz, "label": np.array([0, 3, 14])}
    np.save(source / "xyz_label.npy", np.array(content, dtype=object), allow_pickle=True)
    convert(scanobjectnn.main, source, output)
    rows = read_benchmark(output).with_format("numpy")
    np.testing.assert_array_equal(np.stack([row["xyz"] for row in rows]), xyz)
    assert list(rows["label"]) == [0, 3, 14]


def test_labels_must_be_labels(source: Path, output: Path):
    path = source / "main_split" / "test_objectdataset.h5"
    write_h5(path, np.array([0, 15]))
    assert "its labels lie in [0, 15], the benchmark's in [0, 14]" in refusal(scanobjectnn.main, source, output)
    write_h5(path, np.array([0, 0.5]))
    assert "not whole numbers" in refusal(scanobjectnn.main, source, output)


def test_hdf5_that_reaches_out_of_its_file_or_lies(source: Path, output: Path, tmp_path: Path):
    secret = tmp_path / "secret.h5"
    write_h5(secret, np.array([1, 2]))
    path = source / "main_split" / "test_objectdataset.h5"
    path.parent.mkdir()
    for make in (
        lambda file: h5py.ExternalLink(str(secret), "/data"),
        lambda file: h5py.SoftLink("/label"),
    ):
        with h5py.File(path, "w") as file:
            file["label"], file["data"] = np.array([1, 2]), make(file)
        assert "holds no dataset 'data'" in refusal(scanobjectnn.main, source, output)
    with h5py.File(path, "w") as file:
        file["label"] = np.array([1, 2])
        file.create_dataset("data", (2**30, 2048, 3), "f4", chunks=(1, 2048, 3))
    assert "declares the shape (1073741824, 2048, 3)" in refusal(scanobjectnn.main, source, output)
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(2 * POINTS * 3 * 4))
    with h5py.File(path, "w") as file:
        file["label"] = np.array([1, 2])
        file.create_dataset("data", (2, POINTS, 3), "f4", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
    assert "is no dataset of this file" in refusal(scanobjectnn.main, source, output)


UIDS = {"u0": "Band_Aid", "u1": "zucchini", "u2": "chair"}


def write_lvis(source: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {uid: write_lvis_cloud(source / "000-000" / f"{uid}.npy", seed) for seed, uid in enumerate(UIDS)}


def write_ulip_list(source: Path) -> None:
    (source / "lvis.json").write_text(json.dumps({uid: f"000-000/{uid}.npy" for uid in UIDS}))
    names = load_class_names("objaverse_lvis")
    metadata = {"value_to_key_mapping": UIDS, "key_to_id": {name: label for label, name in enumerate(names)}}
    (source / "objaverse_lvis_metadata.json").write_text(json.dumps(metadata))


def write_openshape_list(source: Path) -> None:
    (source / "meta_data" / "split").mkdir(parents=True)  # the list lies apart from the clouds
    place = "/mnt/data/objaverse-processed/merged/Objaverse/000-000"
    shapes = [{"uid": u, "category": c, "group": "000-000", "data_path": f"{place}/{u}.npy"} for u, c in UIDS.items()]
    (source / "meta_data" / "split" / "lvis.json").write_text(json.dumps(shapes))


def write_uni3d_list(source: Path) -> None:
    names = load_class_names("objaverse_lvis")
    lines = [f"{names.index(category)},{category},{uid},/000-000/{uid}.npy" for uid, category in UIDS.items()]
    (source / "lvis_testset.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("write_list", [write_ulip_list, write_openshape_list, write_uni3d_list])
def test_objaverse_lvis(source: Path, output: Path, write_list: Callable):
    expected = write_lvis(source)
    write_list(source)
    convert(objaverse_lvis.main, source, output)
    rows = load_dataset(str(output), "lvis", split="test")
    assert [rows.features["label"].int2str(label) for label in rows["label"]] == list(UIDS.values())
    rows = rows.with_format("arrow")
    for index, (uid, (xyz, rgb)) in enumerate(expected.items()):
        row = decode_row(rows[index])
        assert row["id"] == uid and row["xyz"].dtype == row["rgb"].dtype == np.float16
        np.testing.assert_array_equal(row["xyz"], xyz)
        np.testing.assert_array_equal(row["rgb"], rgb)


def test_lvis_lists_that_are_wrong(source: Path, output: Path):
    write_lvis(source)
    write_uni3d_list(source)
    path = source / "lvis_testset.txt"
    path.write_text(path.read_text().replace("0,Band_Aid", "7,Band_Aid"))
    assert "line 1: Band_Aid has the label 7; in the benchmark it has 0" in refusal(
        objaverse_lvis.main, source, output
    )
    path.write_text("0,Band_Aid,u0")
    assert "is not `label,class,uid,file`" in refusal(objaverse_lvis.main, source, output)
    path.write_text("0,Unheard_Of,u0,000-000/u0.npy")
    assert "'Unheard Of' is none" in refusal(objaverse_lvis.main, source, output).replace("_", " ")
    path.unlink()
    write_ulip_list(source)
    (source / "objaverse_lvis_metadata.json").write_text('{"value_to_key_mapping": {"u0": "chair"}}')
    assert "does not say the class of 2 shapes, e.g. u1" in refusal(objaverse_lvis.main, source, output)
    (source / "objaverse_lvis_metadata.json").write_text('{"value_to')
    assert "no JSON file, or is truncated" in refusal(objaverse_lvis.main, source, output)
    (source / "lvis.json").unlink()
    assert "e.g. lvis_testset.txt or lvis.json" in refusal(objaverse_lvis.main, source, output)


def test_lvis_files_that_cannot_be_used_are_recorded(source: Path, output: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("modeling_ulip2.building.benchmarks.folder.SHARD_SIZE", 2)
    monkeypatch.setattr("modeling_ulip2.data.benchmarks.Benchmark.expected", lambda *_: (3,))
    expected = write_lvis(source)
    write_uni3d_list(source)
    sign = tmp_path / "executed"
    np.save(source / "000-000" / "u1.npy", np.array({"xyz": Attack(sign)}, dtype=object), allow_pickle=True)
    (tmp_path / "outside.npy").write_bytes((source / "000-000" / "u2.npy").read_bytes())
    path = source / "lvis_testset.txt"
    listed = path.read_text()
    path.write_text(listed.replace("/000-000/u2.npy", "../outside.npy"))
    message = refusal(objaverse_lvis.main, source, output)
    assert "2 of 3 shapes cannot be used, e.g. u1" in message and "was not run" in message
    errors = read_benchmark_manifest(output)["configs"]["lvis"]["splits"]["test"]["errors"]
    assert [(error["id"], error["reason"]) for error in errors] == [("u1", "unsupported"), ("u2", "external_uri")]
    assert not sign.exists()
    with pytest.raises(ValueError, match="it holds nothing"):
        read_benchmark(output, "lvis")
    convert(objaverse_lvis.main, source, output)
    assert read_benchmark(output)["id"][:] == ["u0"]
    assert "2 shapes could not be used" in (output / "README.md").read_text()
    # mended, only the shards that lacked something are read again
    write_lvis_cloud(source / "000-000" / "u1.npy", 1)
    path.write_text(listed)
    main = ["--source", str(source), "--output", str(output)]
    objaverse_lvis.main(main)
    rows = read_benchmark(output).with_format("numpy")
    assert list(rows["id"]) == list(UIDS)
    np.testing.assert_array_equal(rows[1]["xyz"], expected["u1"][0])


def test_a_second_run_writes_only_what_is_missing(source: Path, output: Path, monkeypatch):
    monkeypatch.setattr("modeling_ulip2.building.benchmarks.folder.SHARD_SIZE", 2)
    write_lvis(source)
    write_uni3d_list(source)
    convert(objaverse_lvis.main, source, output)
    shards = sorted((output / "lvis").glob("*.parquet"))
    assert len(shards) == 2
    shards[1].unlink()
    reads = []
    read_cloud = objaverse_lvis.read_cloud
    monkeypatch.setattr(objaverse_lvis, "read_cloud", lambda path: reads.append(path.stem) or read_cloud(path))
    convert(objaverse_lvis.main, source, output)
    assert reads == ["u2"]
    assert read_benchmark(output)["id"][:] == list(UIDS)
    # another list is another dataset: everything is written anew
    (source / "lvis_testset.txt").write_text("0,Band_Aid,u0,000-000/u0.npy\n")
    convert(objaverse_lvis.main, source, output)
    assert read_benchmark(output)["id"][:] == ["u0"]


def test_a_folder_belongs_to_one_benchmark(source: Path, output: Path):
    write_lvis(source)
    write_uni3d_list(source)
    convert(objaverse_lvis.main, source, output)
    write_colored_10k(source, ["airplane"])
    assert "holds objaverse_lvis; choose another folder" in refusal(modelnet40.main, source, output, "--allow-partial")
    with pytest.raises(FileNotFoundError, match="not a converted benchmark"):
        read_benchmark_manifest(source)
    (output / "benchmark.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        read_benchmark_manifest(output)
    assert "there is no folder" in refusal(modelnet40.main, source / "none", output)
