"""What several rooms share: lanes, inputs, errors in words, shapes of the collection as files."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component
from torch import Tensor

from modeling_ulip2.geometry import MeshError, read_mesh
from modeling_ulip2.geometry.axes import AUTO_AXIS, UP_AXES
from modeling_ulip2.geometry.sandbox import path_within
from modeling_ulip2.geometry.shapes import Shape

from . import fit
from .engine import Engine, Hit, NothingGivenError
from .gradio_internals import cached_file
from .uploads import FILE_TYPES, LIMITS, MAX_FACES, read_photo, read_upload
from .viewer import cloud_glb, mesh_glb

logger = logging.getLogger(__name__)

# Longitude and latitude in degrees, and a distance from which a field of view of 46 degrees holds the unit sphere.
CAMERA = (60, 75, 2.7)
AXIS_CHOICES = [AUTO_AXIS, *UP_AXES]
LICENSES = {
    "cc0-1.0": ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "cc-by-3.0": ("CC BY 3.0", "https://creativecommons.org/licenses/by/3.0/"),
    "cc-by-4.0": ("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"),
}


def lane(name: str, limit: int) -> dict[str, Any]:
    """Options of events that wait for one another alone. Within, `Engine` and `uploads` bound what runs at once."""
    return {"concurrency_id": name, "concurrency_limit": limit}


# A search never waits for long lists of labels, a look at a shape never for a search. A call that waits costs a
# thread, of which Gradio has forty.
SEARCH_LANE, CLASSIFY_LANE, SHOW_LANE = lane("search", 16), lane("classify", 12), lane("show", 4)
# A language model, and a projection of thousands of rows, take a processor each.
CAPTION_LANE, MAP_LANE = lane("caption", 1), lane("map", 1)
LOOK_LANE = lane("look", 16)
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# Of events that no visitor asked for.
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", **PRIVATE}


# Brings an element into view where it is not, or hardly: on a phone an answer lies below the inputs.
_REVEAL = """() => setTimeout(() => {
  const element = document.getElementById("%s"), area = element?.getBoundingClientRect();
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (area && (area.top < 0 || area.top + Math.min(area.height, innerHeight / 2) > innerHeight))
    element.scrollIntoView({behavior: still ? "instant" : "smooth", block: "start"});
}, 60)"""


def reveal(elem_id: str) -> dict[str, Any]:
    """Options of a `.then` that scrolls to an element, if it has to."""
    return {"fn": None, "js": _REVEAL % elem_id, "queue": False, **PRIVATE}


def shape_file(**options: Any) -> gr.File:
    """A file input whose value is a path. As it is, gr.File leaves an empty temporary file behind at every call."""
    file = gr.File(file_types=FILE_TYPES, **options)
    file.preprocess = _path
    return file


def photo_input() -> gr.Image:
    """A photo whose value is a path. As it is, gr.Image opens the file itself, without our limits."""
    photo = gr.Image(
        label="Photo", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=190, buttons=[]
    )
    photo.preprocess = _path
    return photo


def _path(payload: Any) -> str | None:
    if payload is None:
        return None
    if not payload.path:
        raise gr.Error("Send a file, not its content as text.", title="That did not work", print_exception=False)
    return payload.path


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


def on_page(function: Callable) -> Callable:
    """`in_words` for a room: where nothing was given, a warning says so and what is shown stays."""

    @in_words
    @functools.wraps(function)
    def guarded(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except NothingGivenError as nothing:
            gr.Warning(str(nothing), title="Nothing to do yet")
            return gr.skip()

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
    file = shape_file(label="3D file", height=120)
    gr.Markdown(LIMITS, elem_classes="hint small")
    return file, axis_input()


def axis_input(*, otherwise: str = "y", **options: Any) -> gr.Radio:
    """Which axis points up in a file; `otherwise`: what "auto" takes where the format says nothing."""
    return gr.Radio(
        AXIS_CHOICES,
        value=AUTO_AXIS,
        label="Axis that points up",
        info=f"auto: what the format says (glTF: y, LAS: z), else {otherwise}. Scans and CAD files often have z.",
        elem_classes="axes",
        **options,
    )


@dataclass(frozen=True)
class Asked:
    """What a panel's inputs come to.

    Attributes:
        vector: (D,) float32, L2-normalized.
        kind: of question, as `Fit` knows it; "" for photos and sums.
        warnings: about the file.
    """

    vector: Tensor
    kind: str
    warnings: list[str]


def read_query(
    engine: Engine,
    text: str,
    photo: str | None,
    file: str | None,
    up: str,
    text_weight: float = 1.0,
    row: int | None = None,
) -> Asked:
    """A panel's inputs, and perhaps a shape of the collection, as one query."""
    shape = read_upload(file, engine.feature_extractor.num_points, up) if file else None
    vector = engine.embed_query(text, read_photo(photo) if photo else None, shape, row, text_weight)
    given = [bool((text or "").strip()), bool(photo), shape is not None or row is not None]
    kind = {(True, False, False): fit.WORDS, (False, False, True): fit.SHAPE}.get(tuple(given), "")
    return Asked(vector, kind, [] if shape is None else shape.warnings)


def uploaded(engine: Engine, path: str | None, up: str) -> Shape:
    """The shape in a room's file input.

    Raises:
        NothingGivenError: there is no file.
    """
    if not path:
        raise NothingGivenError("Add a 3D file, or click an example.")
    return read_upload(path, engine.feature_extractor.num_points, up)


def notes(lines: Sequence[str], failed: bool = False) -> str:
    """HTML of a line below a picture: what a file's warnings say, or why it cannot be used."""
    if not lines:
        return ""
    return f'<p class="{"failure" if failed else "note"}">{escape(" · ".join(lines))}</p>'


def model_viewer(label: str, height: int = 420) -> gr.Model3D:
    """Shows what fits into the unit sphere, as `viewer` makes it, from the front and a little from the side."""
    return gr.Model3D(label=label, interactive=False, camera_position=CAMERA, height=height)


def thumbnails(
    pictures: Sequence[tuple[Any, str]] | None = None, *, label: str, columns: int, elem_classes: str = "shapes"
) -> gr.Gallery:
    """Pictures of shapes with their titles, to be chosen from: a click selects one instead of enlarging it."""
    return gr.Gallery(
        pictures,
        label=label,
        show_label=False,
        columns=columns,
        height="auto",
        object_fit="contain",
        allow_preview=False,
        buttons=[],
        interactive=False,
        elem_classes=elem_classes,
    )


def seen_cloud(engine: Engine, shape: Shape) -> bytes:
    """GLB of exactly the points that the model reads."""
    values = engine.point_values(shape)  # (n, C)
    order = ["xyz".index(axis) for axis in engine.feature_extractor.axes]
    xyz = np.empty_like(values[:, :3])
    xyz[:, order] = values[:, :3]
    rgb = values[:, 3:6] if engine.feature_extractor.in_channels >= 6 else np.full_like(xyz, 0.5)
    return cloud_glb(xyz, np.rint(rgb * 255).astype(np.uint8))


def collection_file(engine: Engine, hit: Hit, as_cloud: bool, viewer: gr.Model3D) -> tuple[str, list[str]]:
    """Path of a GLB of a shape of the collection, its mesh where that is at hand or its cloud, and warnings."""
    data, warnings = (None, []) if as_cloud else _collection_mesh(engine, hit)
    if data is None:
        cloud = engine.index.cloud(hit.row)
        data = seen_cloud(engine, Shape(cloud["xyz"], cloud["rgb"]))
    return cached_file(viewer, data, f"{Path(hit.id).stem or 'shape'}.glb"), warnings


def _collection_mesh(engine: Engine, hit: Hit) -> tuple[bytes | None, list[str]]:
    if engine.meshes is None:
        return None, []
    root = engine.meshes.resolve()
    try:
        path = path_within(root, hit.id)
        if not path.is_file():
            return None, []
        mesh = read_mesh(path, root=root, max_faces=MAX_FACES, strict=False)
        return mesh_glb(mesh), list(mesh.warnings)
    except MeshError as error:
        logger.info("the mesh %s is shown as a cloud (%s)", hit.id, error.reason)
        return None, [f"The mesh cannot be shown, so you see its cloud: {error.args[0]}".replace(f"{root}/", "")]


def title(hit: Hit) -> str:
    return hit.name or Path(hit.id).stem


def credit(hit: Hit) -> str:
    """Markdown that names a shape's creator and license."""
    name, link = LICENSES.get(hit.license, (hit.license, ""))
    by = f"by {hit.creator}" if hit.creator else "creator unknown"
    licensed = f"[{name}]({link})" if link else name or "license unknown"
    return f"**{title(hit)}** · {by} · {licensed}" + (f" · {hit.category}" if hit.category else "")
