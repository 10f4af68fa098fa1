"""What several rooms show: inputs of a query, the 3D viewer, errors in words."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component
from gradio.processing_utils import save_bytes_to_cache

from modeling_ulip2.geometry import MeshError, read_mesh
from modeling_ulip2.geometry.shapes import Shape

from .engine import Engine, Hit
from .uploads import FILE_TYPES, LIMITS, MAX_FACES, read_photo, read_upload
from .viewer import cloud_glb, mesh_glb

logger = logging.getLogger(__name__)

# Longitude and latitude in degrees, and a distance from which a field of view of 46 degrees holds the unit sphere.
CAMERA = (60, 75, 2.7)
UP_AXES = [("y up (GLB, most OBJ)", "y"), ("z up (most STL, scans)", "z")]
LICENSES = {
    "cc0-1.0": ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "cc-by-3.0": ("CC BY 3.0", "https://creativecommons.org/licenses/by/3.0/"),
    "cc-by-4.0": ("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"),
}
# All that runs the model waits in one line, so that a crowd slows people down and does not exhaust the machine.
MODEL_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 2}
PRIVATE: dict[str, Any] = {"api_visibility": "private"}


def shape_file(**options: Any) -> gr.File:
    """A file input whose value is a path. As it is, gr.File leaves an empty temporary file behind at every call."""
    file = gr.File(file_types=FILE_TYPES, **options)
    file.preprocess = lambda payload: None if payload is None else payload.path
    return file


def in_words(function: Callable) -> Callable:
    """Shows what a person can mend as a message; anything else is logged, and reported without details."""

    @functools.wraps(function)
    def guarded(*arguments: Any, **options: Any) -> Any:
        with _told(function.__name__):
            return function(*arguments, **options)

    return guarded


def in_words_streamed(function: Callable) -> Callable:
    """`in_words` for a generator."""

    @functools.wraps(function)
    def guarded(*arguments: Any, **options: Any) -> Iterator[Any]:
        with _told(function.__name__):
            yield from function(*arguments, **options)

    return guarded


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except gr.Error:
        raise
    except ValueError as error:
        raise gr.Error(str(error), title="That did not work", print_exception=False) from None
    except Exception:
        logger.exception("unexpected error in %s", name)
        raise gr.Error(
            "Something went wrong on our side. Please try again.", title="Sorry", print_exception=False
        ) from None


@dataclass
class Panel:
    """Inputs of a query."""

    text: gr.Textbox
    photo: gr.Image
    file: gr.File
    up: gr.Radio

    @property
    def inputs(self) -> list[Component]:
        return [self.text, self.photo, self.file, self.up]


def file_inputs() -> tuple[gr.File, gr.Radio]:
    """A 3D file and the axis that points up in it."""
    file = shape_file(label="3D file", height=140)
    gr.Markdown(LIMITS, elem_classes="hint small")
    up = gr.Radio(UP_AXES, value="y", label="What points up in it")
    return file, up


def photo_input() -> gr.Image:
    return gr.Image(
        label="Photo", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=190, buttons=[]
    )


def read_query(
    engine: Engine, text: str, photo: str | None, file: str | None, up: str, text_weight: float = 1.0
) -> Any:
    """The embedding of a panel's inputs."""
    return engine.embed_query(
        text,
        read_photo(photo) if photo else None,
        read_upload(file, engine.feature_extractor.num_points) if file else None,
        up,
        text_weight,
    )


def model_viewer(label: str, height: int = 420) -> gr.Model3D:
    """Shows what fits into the unit sphere, as `viewer` makes it, from the front and a little from the side."""
    return gr.Model3D(label=label, interactive=False, camera_position=CAMERA, height=height)


def seen_cloud(engine: Engine, shape: Shape, up_axis: str = "y") -> bytes:
    """GLB of exactly the points that the model reads."""
    values = engine.point_values(shape, up_axis)  # (n, C)
    order = ["xyz".index(axis) for axis in engine.feature_extractor.axes]
    xyz = np.empty_like(values[:, :3])
    xyz[:, order] = values[:, :3]
    rgb = values[:, 3:6] if engine.feature_extractor.in_channels >= 6 else np.full_like(xyz, 0.5)
    return cloud_glb(xyz, np.rint(rgb * 255).astype(np.uint8))


def collection_file(engine: Engine, hit: Hit, as_cloud: bool, viewer: gr.Model3D) -> str:
    """Path of a GLB of a shape of the collection: its mesh where that is at hand, or its cloud."""
    data = None if as_cloud else _collection_mesh(engine, hit)
    if data is None:
        cloud = engine.index.cloud(hit.row)
        data = seen_cloud(engine, Shape(cloud["xyz"], cloud["rgb"]), engine.feature_extractor.up_axis)
    return cached_file(viewer, data, f"{Path(hit.id).stem or 'shape'}.glb")


def _collection_mesh(engine: Engine, hit: Hit) -> bytes | None:
    if engine.meshes is None:
        return None
    path = (engine.meshes / hit.id).resolve()
    if not path.is_relative_to(engine.meshes.resolve()) or not path.is_file():
        return None
    try:
        return mesh_glb(read_mesh(path, max_faces=MAX_FACES, strict=False))
    except MeshError as error:
        logger.info("the mesh %s is shown as a cloud (%s)", hit.id, error.reason)
        return None


def cached_file(component: Component, data: bytes, name: str) -> str:
    """Path of a file in the component's cache, which `delete_cache` of the Blocks empties."""
    return save_bytes_to_cache(data, name, component.GRADIO_CACHE)


def title(hit: Hit) -> str:
    return hit.name or Path(hit.id).stem


def credit(hit: Hit) -> str:
    """Markdown that names a shape's creator and licence."""
    name, link = LICENSES.get(hit.license, (hit.license, ""))
    by = f"by {hit.creator}" if hit.creator else "creator unknown"
    licensed = f"[{name}]({link})" if link else name or "licence unknown"
    return f"**{title(hit)}** · {by} · {licensed}" + (f" · {hit.category}" if hit.category else "")
