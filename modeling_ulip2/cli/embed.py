"""`ulip2 embed`: meshes and point clouds as a table of embeddings."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling_ulip2.utils.command_line import CommandParser, add_hub_arguments, hub_options
from modeling_ulip2.utils.places import named_or_own
from modeling_ulip2.utils.scripts import status

from .shared import (
    add_batch_size,
    add_command,
    add_device,
    add_files,
    add_model,
    shape_files,
    tell,
    tell_failure,
    tell_warnings,
)

if TYPE_CHECKING:
    from modeling_ulip2.embedding.records import ShapeRecord

# Rows held in memory before they are written.
_ROW_GROUP = 1024


def register(commands: Any) -> str:
    return add_command(
        commands,
        "embed",
        run,
        "turn meshes and point clouds into a table of embeddings",
        _fill,
        "Embed 3D files into a Parquet table with the columns path, embeds (null where a file cannot be used), error "
        "(null where it can) and warnings. Where no file can be used, no table is written and an old one stays.",
    )


def _fill(parser: CommandParser) -> None:
    add_files(parser)
    parser.group("output").add_argument("-o", "--output", metavar="OUT", required=True, help="Parquet file to write")
    add_model(parser, "a model or point encoder")
    parser.group("output").add_argument(
        "--features",
        choices=["embeds", "pooled"],
        help="the unit vector in the space of the image-text model, or the encoder's own vector "
        "(default: the first that the model has)",
    )
    add_hub_arguments(parser, "model")
    add_batch_size(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2 import Ulip2Embedder
    from modeling_ulip2.embedding.encoding import choose_features

    model = named_or_own(options.model)
    files = shape_files(options.files, options.root)
    embedder = Ulip2Embedder.from_pretrained(
        model, device=options.device, batch_size=options.batch_size, **hub_options(options)
    )
    features = choose_features(embedder.model, options.features)
    records = embedder.iter_shapes(files, features=features, root=options.root, up_axis=options.up_axis)
    failed = write_embeddings(records, options.output, {"model": model, "features": features})
    if failed == len(files):
        old = Path(options.output).exists()
        tell(f"no file could be used: {options.output} {'stays as it was' if old else 'was not written'}")
    else:
        print(f"{len(files) - failed:,} of {len(files):,} files embedded in {options.output}")
    return status(failed, len(files))


def write_embeddings(records: Iterable[ShapeRecord], output: str | Path, metadata: dict[str, str]) -> int:
    """Writes a row for each record to a Parquet file, and tells of warnings and failures.

    The file appears when it is whole, and only if a shape is in it.

    Returns:
        how many failed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from modeling_ulip2.utils.files import whole_path

    columns = {"path": pa.string(), "embeds": pa.list_(pa.float32()), "error": pa.string()}
    columns["warnings"] = pa.list_(pa.string())
    schema = pa.schema(list(columns.items()), metadata=metadata)
    output = Path(output)
    total, failed = 0, 0
    pending: list[dict[str, Any]] = []
    with whole_path(output) as partial:
        with pq.ParquetWriter(partial, schema) as writer:
            for record in records:
                tell_warnings(record.id, record.warnings)
                failure = record.failure
                if failure is not None:
                    tell_failure(failure)
                total, failed = total + 1, failed + (failure is not None)
                pending.append(
                    {
                        "path": record.id,
                        "embeds": None if record.embed is None else record.embed.numpy(),
                        "error": None if failure is None else failure.message,
                        "warnings": list(record.warnings),
                    }
                )
                if len(pending) == _ROW_GROUP:
                    writer.write_table(pa.Table.from_pylist(pending, schema))
                    pending = []
            if pending:
                writer.write_table(pa.Table.from_pylist(pending, schema))
        if failed == total:
            partial.unlink()
    return failed
