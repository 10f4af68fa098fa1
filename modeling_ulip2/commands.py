"""`ulip2 embed` and `ulip2 classify`: a model on your own files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

# A file that cannot be used: its row says why, and the others go on.
_FILE_ERRORS = (ValueError, OSError, MemoryError)
# Rows held in memory before they are written.
_ROW_GROUP = 1024


def add_commands(commands: Any) -> None:
    """Registers both with the sub-parsers of the command `ulip2`."""
    embed = commands.add_parser(
        "embed",
        help="turn meshes and point clouds into a table of embeddings",
        description="Embed 3D files into a Parquet table with the columns path, embeds (null where a file cannot be "
        "used) and error (null where it can).",
    )
    embed.add_argument("files", metavar="FILE", nargs="+", help="meshes, point files, or folders of them")
    embed.add_argument("-o", "--output", metavar="OUT", required=True, help="Parquet file to write")
    embed.add_argument("--model", required=True, metavar="NAME_OR_PATH", help="model or point encoder")
    embed.add_argument(
        "--features",
        choices=["embeds", "pooled"],
        help="the unit vector in the space of the image-text model, or the encoder's own vector "
        "(default: the first that the model has)",
    )
    embed.add_argument("--batch_size", type=int, default=16, help="clouds a forward pass")
    embed.add_argument("--device", help="where to compute (default: a GPU if there is one)")
    embed.set_defaults(run=_embed)

    classify = commands.add_parser(
        "classify",
        help="tell which of your labels a shape is",
        description="Rank labels by how well they fit a 3D file; the scores of a file add up to 1.",
    )
    classify.add_argument("files", metavar="FILE", nargs="+", help="a mesh or a point cloud")
    classify.add_argument("--labels", metavar="LABEL", nargs="+", required=True, help="names to choose from")
    classify.add_argument("--model", required=True, metavar="NAME_OR_PATH", help="folder or hub name of a Ulip2Model")
    classify.add_argument("--tower", metavar="NAME_OR_PATH", help="image-text model, where the model's own has moved")
    classify.add_argument(
        "--template",
        metavar="PROMPT",
        nargs="+",
        help='with {} for the label (default: ULIP-2\'s 64, "a photo of {}")',
    )
    classify.add_argument("--top_k", type=int, help="labels to print (default: all)")
    classify.add_argument("--device", help="where to compute (default: a GPU if there is one)")
    classify.set_defaults(run=_classify)


def _embed(options: argparse.Namespace) -> int:
    from transformers import pipeline

    from .pipelines import FEATURE_EXTRACTION, choose_features

    if options.batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {options.batch_size}")
    files = shape_files(options.files)
    make_pipeline: Any = pipeline  # its overloads know the tasks of transformers only
    embedder = make_pipeline(FEATURE_EXTRACTION, model=options.model, device=options.device)
    features = choose_features(embedder.model, options.features)
    rows = embed_files(embedder, files, features, options.batch_size)
    metadata = {"model": options.model, "features": features}
    errors = write_embeddings(rows, options.output, metadata, len(files))
    print(f"{len(files) - errors:,} of {len(files):,} files embedded in {options.output}")
    if errors:
        print(f"{errors:,} could not be used: see the column error", file=sys.stderr)
    return 2 if errors == len(files) else 0


def _classify(options: argparse.Namespace) -> int:
    from transformers import AutoFeatureExtractor, AutoModel, pipeline

    from .pipelines import ZERO_SHOT_CLASSIFICATION

    given = {} if options.tower is None else {"clip_name_or_path": options.tower}
    model = AutoModel.from_pretrained(options.model, **given)
    features = AutoFeatureExtractor.from_pretrained(options.model)
    make_pipeline: Any = pipeline
    classifier = make_pipeline(
        ZERO_SHOT_CLASSIFICATION,
        model=model,
        feature_extractor=features,
        device=options.device,
        candidate_labels=options.labels,
        hypothesis_template=options.template,
        top_k=options.top_k,
    )
    classifier.class_embeds(options.labels, options.template)  # what is wrong with labels or tower, before any file
    failed = 0
    for file in options.files:
        try:
            ranked = classifier(file)
        except _FILE_ERRORS as error:
            print(f"ulip2: {error}", file=sys.stderr)
            failed += 1
            continue
        if len(options.files) > 1:
            print(file)
        for entry in ranked:
            print(f"{entry['score']:.3f}  {entry['label']}")
    return 2 if failed else 0


def shape_files(paths: Iterable[str | Path]) -> list[Path]:
    """Files as they are given, and of folders, at any depth, those whose suffix is that of a mesh or point file."""
    from .geometry.shapes import SHAPE_SUFFIXES

    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = (file for file in path.rglob("*") if file.suffix.lower() in SHAPE_SUFFIXES and file.is_file())
            files += sorted(inside)
        else:
            files.append(path)
    if not files:
        raise ValueError(f"there is no mesh or point file ({', '.join(SHAPE_SUFFIXES)}) to embed")
    return files


def embed_files(
    embedder: Any, files: Sequence[Path], features: str | None = None, batch_size: int = 16
) -> Iterator[dict[str, Any]]:
    """Rows {path, embeds (D,) float32 or None, error or None} of files, in their order.

    Args:
        embedder: a `point-cloud-feature-extraction` pipeline.
        features: see `pipelines.encode_points`.
    """
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        clouds: list[Any] = []
        errors: list[str | None] = []
        for file in batch:
            try:
                clouds.append(embedder.preprocess(file)["cloud"])
                errors.append(None)
            except _FILE_ERRORS as error:
                errors.append(_told(error))
        embeds = iter(_encoded(embedder, clouds, features))
        for file, unread in zip(batch, errors, strict=True):
            vector, reason = (None, unread) if unread is not None else next(embeds)
            yield {"path": str(file), "embeds": vector, "error": reason}


def _encoded(embedder: Any, clouds: list[Any], features: str | None) -> list[tuple[Any, str | None]]:
    """Vector or error of each cloud; one that the model refuses does not take its batch with it."""
    if not clouds:
        return []
    try:
        vectors = embedder.forward({"cloud": clouds}, features=features)["features"].numpy()  # (B, D)
    except ValueError as error:
        if len(clouds) == 1:
            return [(None, _told(error))]
        return [_encoded(embedder, [cloud], features)[0] for cloud in clouds]
    import numpy as np

    return [(row, None) if np.isfinite(row).all() else (None, "its embedding is not finite") for row in vectors]


def _told(error: BaseException) -> str:
    return str(error) or type(error).__name__


def write_embeddings(
    rows: Iterable[dict[str, Any]], output: str | Path, metadata: dict[str, str], total: int | None = None
) -> int:
    """Writes rows of `embed_files` to a Parquet file, which appears when it is whole; returns how many are errors."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from transformers.utils import logging

    schema = pa.schema(
        [("path", pa.string()), ("embeds", pa.list_(pa.float32())), ("error", pa.string())], metadata=metadata
    )
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.part")
    errors, pending = 0, []
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            for row in logging.tqdm(rows, total=total, desc="shapes", unit="file"):
                errors += row["error"] is not None
                pending.append(row)
                if len(pending) == _ROW_GROUP:
                    writer.write_table(pa.Table.from_pylist(pending, schema))
                    pending = []
            if pending:
                writer.write_table(pa.Table.from_pylist(pending, schema))
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return errors
