"""One model on one benchmark, by protocol: embeddings, figures, tables and pictures in a folder that can be resumed.

    DIR/zero_shot.json    figures with their controls, every class, confusions, protocol, checkpoint, versions, speed
    DIR/report.md         the same for people
    DIR/confusion.png
    DIR/embeds/           embeddings, shard by shard

The JSON file comes last and says that all is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from torch import Tensor
from transformers import AutoConfig, AutoFeatureExtractor, PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from modeling_ulip2.data.benchmarks import BENCHMARKS, complete_splits, read_benchmark, read_benchmark_manifest
from modeling_ulip2.embedding.loading import locate_model
from modeling_ulip2.evaluation.benchmarks.embed_shards import PreparedClouds, Speed, embed_shards, read_shards
from modeling_ulip2.evaluation.benchmarks.protocols import Protocol, find_protocol
from modeling_ulip2.evaluation.class_cache import cached_class_embeddings
from modeling_ulip2.evaluation.embeddings import load_point_model
from modeling_ulip2.evaluation.metrics.controls import Evaluation, evaluate_zero_shot
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult
from modeling_ulip2.evaluation.reports.figures import confusion_matrix
from modeling_ulip2.evaluation.reports.report import class_table, environment, figure_table, format_duration
from modeling_ulip2.models.configuration_ulip2 import Ulip2Config
from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.models.references import Origin
from modeling_ulip2.towers import Tower
from modeling_ulip2.towers.of_model import load_tower_of
from modeling_ulip2.towers.prompts import load_templates
from modeling_ulip2.utils.checksums import sha256_of
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.markdown import markdown_table
from modeling_ulip2.utils.private_apis import repository_file_or_none

RESULT, REPORT, CONFUSION, EMBEDS = "zero_shot.json", "report.md", "confusion.png", "embeds"


@dataclass(frozen=True)
class BenchmarkRun:
    """What is run: a model, one split of a converted benchmark, a protocol. Nothing is loaded yet.

    Use `BenchmarkRun.of`.
    """

    model: str
    folder: Path
    config: str
    split: str
    protocol: Protocol
    extractor: Ulip2FeatureExtractor
    checkpoint: dict[str, str]
    tower: str | None
    source: dict[str, Any]
    benchmark: str
    hub: Mapping[str, Any] = field(default_factory=dict, repr=False)  # with a token, perhaps

    @classmethod
    def of(
        cls,
        model: str | Path,
        folder: str | Path,
        config: str | None = None,
        split: str = "test",
        protocol: str | None = None,
        tower: str | Path | None = None,
        **hub: Any,
    ) -> BenchmarkRun:
        """Checks what is to be run, without loading weights.

        Args:
            model: folder or hub name of a `Ulip2Model`, or name of a published checkpoint.
            folder: a converted benchmark.
            config, split: see `read_benchmark`.
            protocol: a key of `PROTOCOLS`; default: of the project that the model's encoder comes from.
            tower: image-text model to use instead of the model's own.
            hub: `revision`, `token` and `cache_dir` of a hub name.

        Raises:
            ValueError, FileNotFoundError: no such model, benchmark, config, split or protocol.
        """
        manifest, model = read_benchmark_manifest(folder), str(model)
        name = manifest["benchmark"]
        configs = sorted({entry for entry, part in complete_splits(manifest) if part == split})
        if config is None and len(configs) == 1:
            config = configs[0]
        if config is None or config not in configs:
            raise ValueError(
                f"{folder} holds the split {split!r} of {', '.join(configs) or 'nothing'}"
                + (f", not of {config!r}" if config else ": choose a config")
            )
        model, hub = locate_model(model, **hub)
        model_config = AutoConfig.from_pretrained(model, **hub)
        encoder = getattr(model_config, "point_config", None)
        if not isinstance(model_config, Ulip2Config) or not isinstance(encoder, PreTrainedConfig):
            raise ValueError(f"{model} holds a {type(model_config).__name__}, not a Ulip2Config")
        chosen = find_protocol(protocol, encoder.model_type)
        own = AutoFeatureExtractor.from_pretrained(model, **hub)
        reference = tower or Origin(str(model)).resolve(model_config.clip_name_or_path)
        source = manifest["configs"][config]["splits"][split]
        return cls(
            model,
            Path(folder),
            config,
            split,
            chosen,
            chosen.feature_extractor(name, config, own, source["clouds"]["points"]),
            checkpoint_hashes(model, **hub),
            None if reference is None else str(reference),
            source,
            name,
            hub,
        )

    @property
    def embeds_stamp(self) -> str:
        """Everything on which the embeddings depend."""
        source = {key: self.source[key] for key in ("files", "list_sha256", "shapes")}
        protocol = self.protocol.describe(self.benchmark, self.extractor)
        points = self.extractor.num_points, self.extractor.in_channels
        return _digest(self.checkpoint, protocol, points, source, self.config, self.split)

    @property
    def stamp(self) -> str:
        """Everything on which the result depends."""
        return _digest(self.embeds_stamp, self.tower, BENCHMARKS[self.benchmark].class_names)

    def read(self) -> Dataset:
        return read_benchmark(self.folder, self.config, self.split)


def evaluate_benchmark(
    run: BenchmarkRun,
    output_dir: str | Path,
    *,
    batch_size: int = 16,
    num_workers: int | None = None,
    cache_dir: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Zero-shot classification of a benchmark, as one process or as all ranks of a distributed run.

    Args:
        run: from `BenchmarkRun.of`.
        output_dir: see the head of this module. A finished run of the same inputs is read, an unfinished one resumed.
        batch_size: clouds per forward pass.
        num_workers: processes that prepare clouds for each rank; None: as many as the machine has cores to spare.
        cache_dir: of the class embeddings, to be shared by runs; default: `output_dir`.
        seed: of the shuffled control and the bootstrap.
        overwrite: measure again.

    Returns:
        The content of `zero_shot.json`.
    """
    output_dir, state = Path(output_dir), distributed_state()
    if not overwrite and (record := read_result(output_dir, run.stamp)) is not None:
        return record
    clouds = run.read()
    model, _ = load_point_model(run.model, state.device, **run.hub)
    embed_shards(
        model,
        PreparedClouds(clouds, run.extractor, run.protocol.keeps_color(run.benchmark)),
        output_dir / EMBEDS,
        run.embeds_stamp,
        batch_size=batch_size,
        num_workers=num_workers,
        process_index=state.process_index,
        num_processes=state.num_processes,
    )
    state.wait_for_everyone()
    if state.is_main_process:
        embeds, speed = read_shards(output_dir / EMBEDS, len(clouds), run.embeds_stamp)  # (N, D)

        def load() -> Tower:
            return load_tower_of(model, run.model, run.tower)

        names = BENCHMARKS[run.benchmark].class_names
        reference = run.tower or _digest(run.checkpoint)
        cache = Path(cache_dir) if cache_dir else output_dir
        templates = load_templates(run.protocol.templates)
        class_embeds, tower = cached_class_embeddings(reference, names, templates, cache, load)
        labels = torch.tensor(clouds.with_format(None)["label"][:])  # (N,)
        evaluation = evaluate_zero_shot(embeds, class_embeds, labels, names, seed=seed)
        _write(run, output_dir, evaluation, class_embeds, tower, speed, batch_size)
    state.wait_for_everyone()
    record = read_result(output_dir, run.stamp)
    if record is None:
        raise FileNotFoundError(f"{output_dir / RESULT} is missing; all processes must see the same folder")
    return record


def distributed_state() -> PartialState:
    """This process among those that `torchrun` or `accelerate launch` started, on GPUs or on CPUs.

    The first process encodes the prompts while the others wait for it, which may take longer than the usual limit.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))


def read_result(output_dir: Path, stamp: str) -> dict[str, Any] | None:
    """The record of a finished run with this stamp, None if there is none."""
    try:
        record = json.loads((output_dir / RESULT).read_text(encoding="utf-8"))
        return record if record["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(
    run: BenchmarkRun,
    output_dir: Path,
    evaluation: Evaluation[ZeroShotResult],
    class_embeds: Tensor,
    tower: Mapping[str, str],
    speed: Speed,
    batch_size: int,
) -> None:
    benchmark, expected = BENCHMARKS[run.benchmark], run.source["expected"]
    shapes = len(evaluation.result.labels)
    record: dict[str, Any] = {
        "stamp": run.stamp,
        "benchmark": run.benchmark,
        "title": benchmark.title,
        "config": run.config,
        "split": run.split,
        "files": run.source["files"],
        "expected_shapes": expected,
        "partial": bool(expected) and shapes not in expected,
        "model": run.model,
        "checkpoint": run.checkpoint,
        "protocol": run.protocol.describe(run.benchmark, run.extractor),
        "num_points": run.extractor.num_points,
        "in_channels": run.extractor.in_channels,
        "tower": dict(tower),
        "batch_size": batch_size,
        "speed": speed.to_dict(),
        "environment": environment(),
        **evaluation.to_dict(),
    }
    title = f"{benchmark.title} ({run.config}, {run.split}): {Path(run.model).name}"
    confusion_matrix(output_dir / CONFUSION, evaluation.result, class_embeds, title)
    write_text(output_dir / REPORT, "\n".join(_report(title, record, evaluation)) + "\n")
    # last, for it says that all is there
    write_text(output_dir / RESULT, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _report(title: str, record: Mapping[str, Any], evaluation: Evaluation[ZeroShotResult]) -> list[str]:
    protocol, speed = record["protocol"], record["speed"]
    colors = "the file's colors" if protocol["color"] == "stored" else f"gray {protocol['gray']:g} everywhere"
    scale = "centered, radius 1" if protocol["normalize"] else "coordinates as stored"
    rows = {
        "shapes": f"{record['shapes']:,}"
        + (f", not the benchmark's {record['expected_shapes'][0]:,}: **partial**" if record["partial"] else ""),
        "classes to choose from": f"{record['classes']:,}, {record['classes_with_shapes']:,} with shapes",
        "protocol": f"{protocol['name']}: {scale}, {colors}, axes {protocol['axes']}, {protocol['templates']}"
        + ("" if protocol["published"] else "; unpublished for this benchmark, this row is ours"),
        "points": f"{record['num_points']:,}, of larger clouds by {protocol['sampling']}"
        if protocol["sampling"] != "none"
        else "as many as the file has",
        "model": record["model"],
        **{f"SHA-256 of {name}": digest for name, digest in record["checkpoint"].items()},
        "text tower": f"{record['tower']['name']} ({record['tower']['fingerprint']})",
        "time": f"{format_duration(speed['seconds'])}, {100 * speed['encoder_share']:.0f} % of it in the encoder; "
        f"{speed['clouds_per_second_and_process']:.1f} clouds per second and process",
        **{name: str(value) for name, value in record["environment"].items()},
    }
    lines = [f"# {title}", "", *figure_table(evaluation), f"![What is taken for what]({CONFUSION})", ""]
    lines += markdown_table(["", ""], [[name, value] for name, value in rows.items()])
    return [*lines, "## Every class", "", *class_table(evaluation.result)]


def checkpoint_hashes(model: str, **hub: Any) -> dict[str, str]:
    """SHA-256 of a checkpoint's configuration and weights, by file name: the same for a folder and for the hub.

    Of weights in several files, the list of them counts, too.

    Args:
        hub: `revision`, `token` and `cache_dir` of a hub name.

    Raises:
        FileNotFoundError: there are no .safetensors weights, or a file that the list names is missing.
    """
    names = ["config.json"]
    if _find(model, SAFE_WEIGHTS_NAME, hub) is not None:
        names.append(SAFE_WEIGHTS_NAME)
    elif (index := _find(model, SAFE_WEIGHTS_INDEX_NAME, hub)) is not None:
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileNotFoundError(f"{index} is damaged and names no files of weights ({error!r})") from None
        names += [SAFE_WEIGHTS_INDEX_NAME, *shards]
    else:
        raise FileNotFoundError(f"{model} holds neither {SAFE_WEIGHTS_NAME} nor {SAFE_WEIGHTS_INDEX_NAME}")
    paths = {name: _find(model, name, hub) for name in names}
    if lacking := [name for name, path in paths.items() if path is None]:
        raise FileNotFoundError(f"{model} lacks {', '.join(lacking)}")
    return {name: sha256_of(path) for name, path in paths.items() if path is not None}


def _find(model: str, name: str, hub: Mapping[str, Any]) -> Path | None:
    """A file of a checkpoint, fetched if it is on the hub; None if the checkpoint has none of this name."""
    if Path(model).is_dir():
        path = Path(model, name)
        return path if path.is_file() else None
    found = repository_file_or_none(model, name, **hub)
    return None if found is None else Path(found)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
