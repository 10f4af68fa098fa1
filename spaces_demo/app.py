"""The Space: search a collection of shapes by words, photos and shapes, classify files, take embeddings home.

python spaces_demo/app.py                                        # what `make quickstart` built, else our checkpoint
python spaces_demo/app.py --model ORG/NAME --index ORG/INDEX     # folders or hub names
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
with contextlib.suppress(ImportError):
    import spaces  # noqa: F401  (on ZeroGPU, before torch)

import gradio as gr  # noqa: E402
from collect import COMPLETE, MESHES  # noqa: E402
from gradio.themes import sizes  # noqa: E402
from rooms import about, api, caption, classify, embed, map, own, scene, search  # noqa: E402
from rooms.captioner import Captioner, UnfitError  # noqa: E402
from rooms.engine import Engine  # noqa: E402
from rooms.samples import write_samples  # noqa: E402
from rooms.scans import HOMES_CONFIG, Scans  # noqa: E402
from rooms.temporary import own_folder  # noqa: E402
from rooms.uploads import ISOLATION, MAX_MEGABYTES  # noqa: E402

from modeling_ulip2.embedder import Ulip2Embedder  # noqa: E402
from modeling_ulip2.utils.places import OWN_MODEL  # noqa: E402
from modeling_ulip2.utils.scripts import run_main  # noqa: E402

SPACE = Path(__file__).resolve().parent
# On a Space the repository's folders lie beside this file.
ROOT = SPACE if (SPACE / "checkpoints").is_dir() else SPACE.parent


def last_quickstart(outputs: Path) -> Path:
    """Folder of the quickstart that ended last, or where the first one would be."""
    reports = sorted(outputs.glob("quickstart*/report.md"), key=lambda path: path.stat().st_mtime)
    return reports[-1].parent if reports else outputs / "quickstart"


# What `make quickstart` writes; `make demo OUT=folder` or `MESHES=folder` names one of several.
QUICKSTART = Path(os.environ.get("ULIP2_QUICKSTART") or last_quickstart(ROOT / "outputs"))
# What `make caption` trains on it.
CAPTIONER = (
    ROOT / "outputs" / "captioning" if QUICKSTART == ROOT / "outputs" / "quickstart" else QUICKSTART / "captioning"
) / "model"
LABELS = ROOT / "examples" / "data" / "object_labels.csv"
# What is shown when nothing else is named: our checkpoint, with a collection that begins with a few shapes.
CHECKPOINT = ROOT / OWN_MODEL
FIRST_SHAPES = ROOT / "examples" / "data" / "shapes"
FETCH = ROOT / "dataset_scripts" / "sweet_home_3d.py"
OWN = ROOT / "outputs" / "demo"
HOMES = ROOT / "outputs" / "homes"

# Every `[0]` seconds, files older than `[1]` seconds are deleted; all are when the server stops.
DELETE_CACHE = (900, about.CACHE_HOURS * 3600 - 900)
# Requests that may wait; others are asked to come back.
QUEUE_SIZE = 64

# Fonts of the visitor's own system: nothing is fetched from other hosts.
THEME = gr.themes.Soft(
    primary_hue="indigo",
    neutral_hue="slate",
    radius_size=sizes.radius_md,
    font=["ui-sans-serif", "system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_background_fill="white",
    block_background_fill_dark="*neutral_900",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_label_text_color="*body_text_color_subdued",
    block_label_text_color_dark="*body_text_color_subdued",
    block_title_background_fill="none",
    block_title_background_fill_dark="none",
    block_title_padding="0",
    block_title_text_color="*body_text_color",
    block_title_text_color_dark="*body_text_color",
    link_text_color_dark="*primary_300",
    link_text_color_visited_dark="*primary_300",
    # hints and placeholders: at least 4.5 to 1 on every background
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_300",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_300",
)
CSS = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def build_demo(
    engine: Engine,
    captioner: Captioner | None = None,
    refused: str = "",
    growth: own.Growth | None = None,
    homes: Path | None = None,
) -> gr.Blocks:
    """The interface over a loaded engine, and captions if a model is given; `launch_options` belong to it.

    `refused`: why the captioner that was named is not shown. `growth`: builds more of the collection meanwhile.
    `homes`: folder of scanned homes, for the tab Scene.
    """
    with gr.Blocks(
        title="ULIP-2: search and name 3D shapes", analytics_enabled=False, delete_cache=DELETE_CACHE
    ) as demo:
        gr.Markdown("# ULIP-2\nShapes, photos and words in one space.", elem_id="head")
        grown = None if growth is None else own.build(growth, demo)
        api.build(engine, captioner)  # first, or the rooms' private events would take its names
        samples = write_samples(engine)
        with gr.Tabs() as tabs:
            with gr.Tab("Search", id="search"):
                room = search.SearchRoom(engine, grown)
            with gr.Tab("Classify", id="classify"):
                classify.build(engine, samples, grown)
            with gr.Tab("Caption", id="caption"):
                caption.build(engine, captioner, samples, refused)
            with gr.Tab("Embed", id="embed"):
                embed.build(engine, samples)
            with gr.Tab("Map", id="map") as tab:
                map.build(engine, tab, room, tabs, grown)
            with gr.Tab("Scene", id="scene"):
                scene.SceneRoom(engine, Scans(engine, homes))
            with gr.Tab("About", id="about"):
                about.build(engine, captioner, grown)
    return demo.queue(max_size=QUEUE_SIZE)


def launch_options() -> dict[str, Any]:
    """Arguments of `Blocks.launch` that the look and the safety of the demo depend on."""
    return {
        "theme": THEME,
        "css": CSS,
        "max_file_size": f"{MAX_MEGABYTES}mb",
        "show_error": False,
        "ssr_mode": False,
        "share": False,
        "footer_links": ["api"],
    }


def quickstart_index(model: Path, output_dir: Path) -> Path:
    """Indexes the quickstart's shapes; what is there already is not done again."""
    from modeling_ulip2.data.labels import read_labels
    from modeling_ulip2.data.reading import read_triplets
    from modeling_ulip2.search.build import build_index
    from modeling_ulip2.search.shape_sources import TripletSource

    folder = output_dir / "index"
    source = TripletSource(
        read_triplets(str(output_dir / "dataset")),
        read_labels(LABELS) if LABELS.is_file() else None,
        output_dir / "dataset",
    )
    embedder = Ulip2Embedder.from_pretrained(model)
    try:
        build_index(source, folder, embedder)
    except ValueError:  # of another model or of other shapes, from an earlier quickstart
        build_index(source, folder, embedder, overwrite=True)
    return folder


def load_own(tower: str | None = None, meshes: Path | None = None) -> tuple[Engine, own.Growth | None]:
    """Our checkpoint over the demo's own collection, and what builds the rest of that, if there is one."""
    embedder = Ulip2Embedder.from_pretrained(CHECKPOINT, tower=tower)
    engine = Engine(embedder, own.open_own(embedder, OWN, FIRST_SHAPES), meshes or OWN / MESHES)
    if (OWN / COMPLETE).is_file():
        return engine, None
    command = [sys.executable, str(SPACE / "collect.py"), "--model", str(CHECKPOINT), "--folder", str(OWN)]
    command += ["--fetch", str(FETCH), *(["--labels", str(LABELS)] if LABELS.is_file() else [])]
    return engine, own.Growth(engine, OWN, [*command, *(["--tower", tower] if tower else [])])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("ULIP2_MODEL"), help="folder or hub name of a Ulip2Model")
    parser.add_argument(
        "--index", default=os.environ.get("ULIP2_INDEX"), help="what `ulip2 index` wrote, or its hub name"
    )
    parser.add_argument(
        "--captioner",
        default=os.environ.get("ULIP2_CAPTIONER"),
        help="folder or hub name of a Ulip2ForConditionalGeneration; without one the tab Caption says how to get one",
    )
    parser.add_argument("--tower", help="image-text model, where the model's own has moved")
    parser.add_argument("--meshes", type=Path, help="folder of the collection's meshes; without it clouds are shown")
    parser.add_argument(
        "--homes",
        type=Path,
        default=HOMES if HOMES.is_dir() else None,
        help="folder of scanned homes, which dataset_scripts/sweet_home_3d_homes.py writes, for the tab Scene "
        f"(default: {HOMES.relative_to(ROOT)}, if it is there)",
    )
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    args = parser.parse_args(argv)
    if bool(args.model) != bool(args.index):
        sys.exit("--model and --index belong together: an index can be asked by the model that made it alone.")
    ours = not args.model and not os.environ.get("ULIP2_QUICKSTART") and CHECKPOINT.is_dir()
    if not args.model:
        missing = [name for name in ("model", "dataset") if not (QUICKSTART / name).is_dir()]
        ours = ours and bool(missing)
        if missing and not ours:
            sys.exit(
                f"There is no {missing[0]} in {QUICKSTART}. Run `make quickstart` first, or name your own with "
                "--model and --index (`ulip2 index` builds one)."
            )
    if not args.model and not ours:
        args.model = QUICKSTART / "model"
        args.index = quickstart_index(args.model, QUICKSTART)
        if args.captioner is None and CAPTIONER.is_dir():
            args.captioner = CAPTIONER
        if args.meshes is None and (QUICKSTART / "meshes").is_dir():
            args.meshes = QUICKSTART / "meshes"
    if args.homes is not None and not any((args.homes / HOMES_CONFIG).glob("*.parquet")):
        sys.exit(f"{args.homes} holds no scanned homes: dataset_scripts/sweet_home_3d_homes.py writes them.")
    for name in filter(None, (args.model, args.index, args.captioner)):
        looks_local = Path(name).is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") > 1
        if looks_local and not Path(name).expanduser().is_dir():
            sys.exit(f"{name} is not a folder.")
    own_folder()
    captioner, refused, growth = None, "", None
    try:
        if ours:
            engine, growth = load_own(args.tower, args.meshes)
        else:
            engine = Engine.load(args.model, args.index, args.tower, args.meshes)
        if args.captioner:
            captioner = Captioner.load(args.captioner)
    except UnfitError as unfit:
        refused = str(unfit)
        print(refused, file=sys.stderr)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    ISOLATION.start()
    engine.fit.start()
    demo = build_demo(engine, captioner, refused, growth, args.homes)
    if growth is not None:
        growth.start()
    try:
        demo.launch(server_name=args.host, server_port=args.port, **launch_options())
    finally:
        demo.close()
        if growth is not None:
            growth.stop()


if __name__ == "__main__":
    run_main(main)
