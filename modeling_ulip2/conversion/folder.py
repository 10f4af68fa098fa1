"""A published checkpoint -> a folder for `AutoModel.from_pretrained`, with its card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from transformers import PreTrainedModel

from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.models.modeling_slip import SlipModel
from modeling_ulip2.models.modeling_ulip2 import Ulip2Model
from modeling_ulip2.models.processing_ulip2 import Ulip2Processor
from modeling_ulip2.towers.slip import slip_processor
from modeling_ulip2.utils.checksums import sha256_of

from .assemble import Conversion, convert
from .card import model_card
from .catalog import find_by_checksum
from .checkpoint import PublishedCheckpoint, read_checkpoint
from .encoders import ConversionError
from .releases import Release, find_release, fits
from .verify import record

TOWER_FOLDER = "tower"
# Shards are written one after the other, so that a shard is what saving holds in memory.
MAX_SHARD_SIZE = "1GB"
# Recording an embedding runs the model in float32; larger models are left to the user's own machine.
_LARGEST_RECORDED = 400_000_000


def convert_to_folder(
    file: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    point_config: Mapping[str, Any] | None = None,
    clip_name_or_path: str | None = None,
    ignore: str | None = None,
    release: Release | None = None,
    name: str = "FOLDER",
    tower_file: Callable[[], str | os.PathLike[str]] | None = None,
) -> tuple[Conversion, Release | None]:
    """Converts a published file and writes model, feature extractor, remote code, tower (SLIP) and card.

    Args:
        file: the published file.
        output_dir: must be new or empty.
        point_config, ignore: see `convert`.
        clip_name_or_path: the image-text tower that the model shall refer to; default: the published one, where
            transformers can load it, or the SLIP of the file.
        release: what the file is; default: told by its checksum, else by its size.
        name: how the examples of the card call the model, e.g. the repository where it will lie.
        tower_file: gives the published file of the release's SLIP, where this file does not hold it.

    Returns:
        The conversion and the release that the file was recognized as.

    Raises:
        ConversionError: the file does not fit, or is another than `release`; nothing is written then.
        FileExistsError: the folder holds something already.
    """
    output = Path(output_dir)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} exists and is not empty: choose a new folder, or empty it.")
    checkpoint = read_checkpoint(file)
    conversion = convert(checkpoint, point_config, clip_name_or_path, ignore)
    checksum = sha256_of(Path(file))
    known = find_by_checksum(checksum)
    if release is None:
        release = known.release if known else release_of(conversion, checkpoint)
    elif not is_release_of(release, conversion):
        found = release_of(conversion, checkpoint)
        raise ConversionError(
            f"{file} is not {release.title}: it holds {found.title if found else conversion.layout.name} with "
            f"{conversion.model.num_parameters():,} parameters."
        )
    model = conversion.model
    wants_tower = clip_name_or_path is None and release is not None and release.tower_release is not None
    if conversion.tower is None and wants_tower and tower_file is not None:
        conversion.tower = convert(tower_file()).model  # type: ignore[assignment]
    if isinstance(model, Ulip2Model) and clip_name_or_path is None:
        model.config.clip_name_or_path = (
            f"./{TOWER_FOLDER}" if conversion.tower is not None else release.tower if release else None
        )
    # written beside its place and moved there whole: a folder that exists is complete
    output.parent.mkdir(parents=True, exist_ok=True)
    # (next to it: what is written relative to the one holds for the other)
    folder = output.with_name(f".{output.name}-{uuid4().hex[:8]}")
    try:
        _write(conversion, checkpoint, release, checksum, folder, name)
        if output.exists():
            output.rmdir()
        folder.rename(output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return conversion, release


def _write(
    conversion: Conversion,
    checkpoint: PublishedCheckpoint,
    release: Release | None,
    checksum: str,
    folder: Path,
    name: str,
) -> None:
    model: Any = conversion.model
    tower: Any = conversion.tower
    if tower is not None:  # first, as the model refers to it
        _save(tower, folder / TOWER_FOLDER)
    _save(model, folder)
    if isinstance(model, SlipModel):
        slip_processor(model.config).save_pretrained(folder)  # type: ignore[arg-type]
    else:
        features = feature_extractor_of(conversion, checkpoint, release)
        features.save_pretrained(folder)
    if tower is not None:
        processor: Any = slip_processor(tower.config)
        processor.save_pretrained(folder / TOWER_FOLDER)
        Ulip2Processor(features, processor.tokenizer, processor.image_processor).save_pretrained(folder)
    recorded = not isinstance(model, SlipModel) and model.num_parameters() <= _LARGEST_RECORDED
    if recorded:
        record(model, folder)
    card = model_card(conversion, checkpoint, release, checksum, recorded, name)
    (folder / "README.md").write_text(card, encoding="utf-8")


def release_of(conversion: Conversion, checkpoint: PublishedCheckpoint) -> Release | None:
    """The published release that a converted file is, if its size is known."""
    return find_release(*_size_of(conversion), checkpoint.name)


def is_release_of(release: Release, conversion: Conversion) -> bool:
    """Whether a converted file has the layout and the size of a release."""
    return fits(release, *_size_of(conversion))


def _size_of(conversion: Conversion) -> tuple[str, str | None, Any, int | None]:
    model = conversion.model
    config: Any = getattr(model.config, "point_config", model.config)
    encoder = conversion.encoder.model_type if conversion.encoder else None
    return conversion.layout.name, encoder, config, getattr(model.config, "projection_dim", None)


def feature_extractor_of(
    conversion: Conversion, checkpoint: PublishedCheckpoint, release: Release | None
) -> Ulip2FeatureExtractor:
    """How clouds must be prepared for a converted model; the file's own arguments count more than the release."""
    config: Any = getattr(conversion.model.config, "point_config", conversion.model.config)
    num_points = checkpoint.args.get("npoints")
    if not isinstance(num_points, int) or num_points < 1:
        num_points = release.num_points if release else Ulip2FeatureExtractor().num_points
    prepared: dict[str, Any] = {"axes": release.axes, "sampling": release.sampling} if release else {}
    return Ulip2FeatureExtractor(num_points=num_points, in_channels=config.in_channels, **prepared)


def _save(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size=MAX_SHARD_SIZE)
    # weights stay in the precision of the file, but the published figures hold for computation in float32
    model.config.dtype = torch.float32
    model.config.save_pretrained(folder)
