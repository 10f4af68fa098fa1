"""A model on a converted benchmark: equals the protocol written out, resumes, and keeps what it did."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from modeling_ulip2 import Ulip2FeatureExtractor, Ulip2Model
from modeling_ulip2.data.reading import CloudRows
from modeling_ulip2.evaluation import load_class_names, load_templates
from modeling_ulip2.evaluation.benchmarks import embed_shards
from modeling_ulip2.evaluation.benchmarks import run as benchmark_run
from modeling_ulip2.evaluation.benchmarks.embed_shards import PreparedClouds
from modeling_ulip2.evaluation.benchmarks.protocols import PROTOCOLS
from modeling_ulip2.evaluation.benchmarks.run import BenchmarkRun, checkpoint_hashes, evaluate_benchmark
from modeling_ulip2.models.feature_extraction_ulip2 import unit_sphere
from modeling_ulip2.models.point_ops import FPSRule, farthest_point_sample
from modeling_ulip2.towers import load_tower
from tests.evaluation.benchmark_folders import write_benchmark
from tests.evaluation.world import NUM_POINTS, World, build_world

SHAPES = 30


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def embed(world: World, clouds: list[np.ndarray]) -> torch.Tensor:
    model = Ulip2Model.from_pretrained(world.model).eval()
    with torch.no_grad():
        values = torch.from_numpy(np.stack(clouds).astype(np.float32))
        return F.normalize(model.get_point_features(values).pooler_output, dim=-1)


def classes(world: World, name: str) -> torch.Tensor:
    tower = load_tower(world.tower)
    rows = [
        F.normalize(tower.encode_text([t.format(cls) for t in load_templates()]), dim=-1).mean(dim=0)
        for cls in load_class_names(name)
    ]
    return F.normalize(torch.stack(rows), dim=-1)


def test_equals_ulip2s_protocol_on_modelnet40_written_out(world: World, tmp_path: Path):
    xyz, _, labels = write_benchmark(
        tmp_path / "modelnet40", "modelnet40", "colored_10k", SHAPES, NUM_POINTS, color=True
    )
    run = BenchmarkRun.of(world.model, tmp_path / "modelnet40")
    record = evaluate_benchmark(run, tmp_path / "out", batch_size=7, num_workers=0)

    # as stored, gray everywhere
    embeds = embed(world, [np.concatenate([cloud, np.full_like(cloud, 0.4)], axis=1) for cloud in xyz])
    ranked = (embeds @ classes(world, "modelnet40").T).topk(5).indices
    for k in (1, 3, 5):
        hits = (ranked[:, :k] == torch.from_numpy(labels)[:, None]).any(dim=1)
        assert record[f"top{k}"] == pytest.approx(hits.double().mean().item())
        assert record[f"top{k}_class_average"] == pytest.approx(hits.double().mean().item())  # one shape per class
    assert record["protocol"]["name"] == "ulip2" and not record["protocol"]["normalize"]
    assert record["partial"] and record["expected_shapes"] == [2468]
    assert record["config"] == "colored_10k" and record["split"] == "test"
    assert record["shapes"] == SHAPES and record["classes_with_shapes"] == SHAPES
    assert set(record["checkpoint"]) == {"config.json", "model.safetensors"}
    assert record["tower"]["fingerprint"] == load_tower(world.tower).fingerprint
    assert 0 < record["speed"]["encoder_share"] < 1 and record["speed"]["clouds"] == SHAPES
    assert record["environment"]["torch"] == torch.__version__.partition("+")[0] or record["environment"]["torch"]
    assert len(record["per_class"]) == SHAPES and record["figures"]["top1"]["chance"] == 1 / 40
    assert json.loads((tmp_path / "out" / "zero_shot.json").read_text()) == record
    assert Image.open(tmp_path / "out" / "confusion.png").format == "PNG"
    report = (tmp_path / "out" / "report.md").read_text()
    assert "not the benchmark's 2,468: **partial**" in report and record["checkpoint"]["model.safetensors"] in report


def with_extractor(world: World, folder: Path, **options) -> Path:
    """The model with another feature extractor."""
    shutil.copytree(world.model, folder, ignore=shutil.ignore_patterns("processor_config.json"))
    Ulip2FeatureExtractor(num_points=NUM_POINTS, **options).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("sampling", ["fps", "random"])
def test_larger_clouds_are_thinned_as_the_model_was_trained(world: World, tmp_path: Path, sampling: str):
    xyz, _, _ = write_benchmark(tmp_path / "modelnet40", "modelnet40", "fps_8192", 5, points=100)
    model = with_extractor(world, tmp_path / "model", sampling=sampling)
    run = BenchmarkRun.of(model, tmp_path / "modelnet40")
    clouds = PreparedClouds(run.read(), run.extractor, run.protocol.keeps_color("modelnet40"))
    for cloud, values in zip(xyz, clouds, strict=True):
        points = torch.from_numpy(unit_sphere(cloud.astype(np.float64)).astype(np.float32))
        keep = farthest_point_sample(points[None], NUM_POINTS, FPSRule())[0].numpy()
        keep = keep if sampling == "fps" else np.random.default_rng(0).permutation(100)[:NUM_POINTS]
        expected = unit_sphere(cloud[keep].astype(np.float64))
        np.testing.assert_allclose(values[:, :3], expected, atol=1e-6)
        assert (values[:, 3:] == np.float32(0.4)).all()


@pytest.mark.parametrize("axes", ["xyz", "xzy"])
@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_axes_are_the_models_and_colors_the_protocols(world: World, tmp_path: Path, protocol: str, axes: str):
    """Neither does OpenShape's protocol turn a model that stands y up, nor ULIP-2's one that does not."""
    xyz, rgb, _ = write_benchmark(tmp_path / "modelnet40", "modelnet40", "fps_8192", 3, NUM_POINTS, color=True)
    model = with_extractor(world, tmp_path / "model", axes=axes)
    run = BenchmarkRun.of(model, tmp_path / "modelnet40", protocol=protocol)
    clouds = PreparedClouds(run.read(), run.extractor, run.protocol.keeps_color("modelnet40"))
    for cloud, color, values in zip(xyz, rgb, clouds, strict=True):
        expected = unit_sphere(cloud.astype(np.float64))[:, ["xyz".index(axis) for axis in axes]]
        shown = np.full_like(cloud, 0.4) if protocol == "ulip2" else color / 255
        np.testing.assert_allclose(values, np.concatenate([expected, shown], axis=1), atol=1e-6)


def test_another_extractor_is_another_run(world: World, tmp_path: Path):
    write_benchmark(tmp_path / "modelnet40", "modelnet40", "fps_8192", 3, NUM_POINTS)
    options = [{}, {"axes": "xzy"}, {"normalize": False}, {"sampling": "fps"}, {"fill_color": 0.5}, {"seed": 1}]
    stamps = set()
    for number, own in enumerate(options):
        run = BenchmarkRun.of(with_extractor(world, tmp_path / str(number), **own), tmp_path / "modelnet40")
        stamps.add(run.embeds_stamp)
    assert len(stamps) == len(options)


def test_checksums_of_weights_in_several_files_are_those_of_the_hub(world: World, tmp_path: Path, monkeypatch):
    """In a folder and in a cache of the hub; a file that is not there is named."""
    folder = tmp_path / "sharded"
    Ulip2Model.from_pretrained(world.model).save_pretrained(folder, max_shard_size="20KB")
    files = sorted(path.name for path in folder.glob("model-*.safetensors"))
    assert len(files) > 1
    found = checkpoint_hashes(str(folder))
    assert set(found) == {"config.json", "model.safetensors.index.json", *files}
    assert found[files[0]] == hashlib.sha256((folder / files[0]).read_bytes()).hexdigest()

    snapshot = tmp_path / "cache" / "snapshot"
    snapshot.mkdir(parents=True)

    def fetch(model: str, name: str, **options) -> str | None:
        """Of the hub's cache only what was asked for is there."""
        assert model == "someone/sharded"
        return shutil.copy(folder / name, snapshot) if (folder / name).is_file() else None

    monkeypatch.setattr(benchmark_run, "repository_file_or_none", fetch)
    assert checkpoint_hashes("someone/sharded") == found
    (folder / files[-1]).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {files[-1]}"):
        checkpoint_hashes(str(folder))
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(FileNotFoundError, match="index.json is damaged"):
        checkpoint_hashes(str(folder))


def test_a_stopped_run_goes_on_and_a_finished_one_is_read(world: World, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(embed_shards, "SHARD_SIZE", 8)
    write_benchmark(tmp_path / "scan", "scanobjectnn", "OBJ_ONLY", SHAPES)
    run = BenchmarkRun.of(world.model, tmp_path / "scan")
    whole = evaluate_benchmark(run, tmp_path / "whole", batch_size=3, num_workers=0)
    assert len(list((tmp_path / "whole" / "embeds").glob("*.safetensors"))) == 4

    seen: list[int] = []
    read = CloudRows.__getitem__

    def stopping(self, index: int):
        seen.append(index)
        if len(seen) == 20:
            raise KeyboardInterrupt
        return read(self, index)

    monkeypatch.setattr(CloudRows, "__getitem__", stopping)
    with pytest.raises(KeyboardInterrupt):
        evaluate_benchmark(run, tmp_path / "out", batch_size=3, num_workers=0)
    assert len(list((tmp_path / "out" / "embeds").glob("*.safetensors"))) == 2
    (tmp_path / "out" / "embeds" / "embeds-00001-of-00004.safetensors").write_bytes(b"damaged")
    seen[:] = [0] * 20
    resumed = evaluate_benchmark(run, tmp_path / "out", batch_size=3, num_workers=0)
    assert seen[20:] == list(range(8, SHAPES))
    changing = ("speed", "environment")
    assert {k: v for k, v in resumed.items() if k not in changing} == {
        k: v for k, v in whole.items() if k not in changing
    }

    def never(*_):
        raise AssertionError("loaded although the result is there")

    monkeypatch.setattr(benchmark_run, "load_point_model", never)
    assert evaluate_benchmark(run, tmp_path / "out") == resumed


def test_class_embeddings_are_made_once_for_all_runs(world: World, tmp_path: Path, monkeypatch):
    write_benchmark(tmp_path / "scan", "scanobjectnn", "OBJ_ONLY", 4)
    write_benchmark(tmp_path / "scan", "scanobjectnn", "OBJ_BG", 4, seed=1)
    loads = []
    load = benchmark_run.load_tower_of
    monkeypatch.setattr(benchmark_run, "load_tower_of", lambda *args: loads.append(args) or load(*args))
    records = [
        evaluate_benchmark(
            BenchmarkRun.of(world.model, tmp_path / "scan", config),
            tmp_path / config,
            num_workers=0,
            cache_dir=tmp_path / "classes",
        )
        for config in ("OBJ_ONLY", "OBJ_BG")
    ]
    assert len(loads) == 1 and records[0]["tower"] == records[1]["tower"]
    assert records[0]["stamp"] != records[1]["stamp"]
    # other weights in the same place are another tower
    torch.manual_seed(3)
    tower = load_tower(world.tower).model
    torch.nn.init.normal_(tower.text_projection.weight)
    tower.save_pretrained(tmp_path / "tower")
    load_tower(world.tower).tokenizer.save_pretrained(tmp_path / "tower")
    load_tower(world.tower).image_processor.save_pretrained(tmp_path / "tower")
    run = BenchmarkRun.of(world.model, tmp_path / "scan", "OBJ_BG", tower=tmp_path / "tower")
    record = evaluate_benchmark(run, tmp_path / "other", num_workers=0, cache_dir=tmp_path / "classes")
    assert len(loads) == 2 and record["tower"] != records[0]["tower"]


def test_two_ranks_share_the_shards(world: World, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(embed_shards, "SHARD_SIZE", 8)
    write_benchmark(tmp_path / "scan", "scanobjectnn", "OBJ_ONLY", SHAPES)
    run = BenchmarkRun.of(world.model, tmp_path / "scan")
    clouds = PreparedClouds(run.read(), run.extractor, False)
    model = Ulip2Model.from_pretrained(world.model).eval()
    for rank in (1, 0):
        with pytest.raises(FileNotFoundError, match="is missing; all processes must write"):
            embed_shards.read_shards(tmp_path / "two", SHAPES, "stamp")
        embed_shards.embed_shards(
            model, clouds, tmp_path / "two", "stamp", num_workers=0, process_index=rank, num_processes=2
        )
    embed_shards.embed_shards(model, clouds, tmp_path / "one", "stamp", num_workers=1)
    two, speed = embed_shards.read_shards(tmp_path / "two", SHAPES, "stamp")
    one, _ = embed_shards.read_shards(tmp_path / "one", SHAPES, "stamp")
    torch.testing.assert_close(two, one)
    assert speed.clouds == SHAPES and 0 < speed.encoder_seconds < speed.seconds


def test_says_what_is_wrong(world: World, tmp_path: Path):
    write_benchmark(tmp_path / "scan", "scanobjectnn", "OBJ_ONLY", 4)
    write_benchmark(tmp_path / "scan", "scanobjectnn", "PB_T25", 4)
    with pytest.raises(ValueError, match="holds the split 'test' of OBJ_ONLY, PB_T25: choose a config"):
        BenchmarkRun.of(world.model, tmp_path / "scan")
    with pytest.raises(ValueError, match="not of 'PB_T50_RS'"):
        BenchmarkRun.of(world.model, tmp_path / "scan", "PB_T50_RS")
    with pytest.raises(ValueError, match="there is no protocol 'pointbind'; there are ulip2, openshape, uni3d"):
        BenchmarkRun.of(world.model, tmp_path / "scan", "PB_T25", protocol="pointbind")
    with pytest.raises(ValueError, match="holds a CLIPConfig, not a Ulip2Config"):
        BenchmarkRun.of(world.tower, tmp_path / "scan", "PB_T25")
    with pytest.raises(FileNotFoundError, match="not a converted benchmark"):
        BenchmarkRun.of(world.model, tmp_path)
    clouds = PreparedClouds(
        BenchmarkRun.of(world.model, tmp_path / "scan", "PB_T25").read(),
        Ulip2FeatureExtractor(in_channels=6, sampling="none"),
    )
    model = Ulip2Model.from_pretrained(world.model).train()
    with pytest.raises(ValueError, match="training mode"):
        embed_shards.embed_shards(model, clouds, tmp_path / "embeds", "stamp")
