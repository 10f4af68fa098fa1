"""A tiny collection, its random model and its index, and the demo over them.

Nothing here imports gradio or faiss before a test asks for it: where they are missing, each test file says so itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.dataset_scripts.shapes import write_box
from tests.evaluation.world import World, build_world

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "spaces_demo"))

if TYPE_CHECKING:
    from rooms.captioner import Captioner
    from rooms.engine import Engine


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def write_index(world: World, folder: Path, shapes: int | None = None, labels: bool = True) -> Path:
    """An index of the first `shapes` shapes of a world."""
    from modeling_ulip2.data.labels import read_labels
    from modeling_ulip2.data.reading import read_triplets
    from modeling_ulip2.embedder import Ulip2Embedder
    from modeling_ulip2.search.build import build_index
    from modeling_ulip2.search.shape_sources import TripletSource

    triplets = read_triplets(str(world.dataset))
    source = TripletSource(
        triplets if shapes is None else triplets.select(range(shapes)),
        read_labels(world.labels_file) if labels else None,
    )
    build_index(source, folder, Ulip2Embedder.from_pretrained(world.model), progress=False)
    return folder


@pytest.fixture(scope="session")
def index_folder(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_index(world, tmp_path_factory.mktemp("index") / "index")


@pytest.fixture(scope="session")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of meshes of the collection, of which all but the first are gone."""
    folder = tmp_path_factory.mktemp("meshes")
    write_box(folder / "made" / "00.obj", color=(1, 0, 0))
    return folder


@pytest.fixture(scope="session")
def engine(world: World, index_folder: Path, meshes: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    from rooms.engine import Engine

    return Engine.load(world.model, index_folder, meshes=meshes, cache_dir=tmp_path_factory.mktemp("labels"))


@pytest.fixture(scope="session")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    """A random connector between a random encoder and a random language model, saved and loaded again."""
    from rooms.captioner import Captioner

    from tests.models.captioning_world import VOCABULARY, WORDS, captioner, language_model, save_parts

    folder = tmp_path_factory.mktemp("captioner")
    parts = save_parts(folder)
    language_model(max_position_embeddings=1024).save_pretrained(folder / "language")  # room for a conversation
    model, processor = captioner(*parts)
    model.save_pretrained(folder / "tiny-captioner")
    processor.save_pretrained(folder / "tiny-captioner")
    loaded = Captioner.load(folder / "tiny-captioner")
    loaded.max_new_tokens = 8
    # words alone: no special token, and no row of the embeddings that stands for none
    loaded.model.generation_config.suppress_tokens = [0, 1, 2, *range(len(WORDS) - 1, VOCABULARY)]
    return loaded


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GLB, since an OBJ's colors lie in another file, which an upload leaves behind."""
    from rooms.viewer import mesh_glb

    from modeling_ulip2.geometry import read_mesh

    folder = tmp_path_factory.mktemp("upload")
    (folder / "box.glb").write_bytes(mesh_glb(read_mesh(write_box(folder / "box.obj", (1, 2, 0.5)))))
    return folder / "box.glb"


@pytest.fixture(scope="session")
def server(engine: Engine, captioner: Captioner) -> Iterator[str]:
    """The demo, launched with its own options; gives its address."""
    from app import build_demo, launch_options

    demo = build_demo(engine, captioner)
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **launch_options())
    yield address
    demo.close()
