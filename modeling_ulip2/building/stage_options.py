"""What a build can be told about its stages, and the stages made of it: one table of options, one of captioners."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from modeling_ulip2.building.engines.shard import StageFactory
from modeling_ulip2.data.recorded_captions import CAPTION_COLUMNS, SUFFIXES
from modeling_ulip2.geometry import camera_rings
from modeling_ulip2.geometry.axes import AUTO_AXIS, UP_AXES
from modeling_ulip2.geometry.cameras import ELEVATION, FILL, FIT, FOV, PUBLISHED_RING
from modeling_ulip2.geometry.reading import MAX_BYTES, MAX_FACES
from modeling_ulip2.utils.checksums import sha256_of
from modeling_ulip2.utils.command_line import positive

from .captioners.base import MetadataCaptioner
from .captioners.generators import GENERATORS, Decoding, Generator
from .captioners.labels import LabelsCaptioner
from .captioners.recorded import RecordedCaptioner
from .stages.base import local_name
from .stages.embed import EmbedCaptions, EmbedViews
from .stages.rank import KeepCaptions, RankCaptions
from .stages.read import ReadMesh, SamplePoints
from .stages.render import IMAGE_FORMATS, RenderViews
from .stages.tower import DTYPES, hub_pairs


def _generator(generator: Generator, args: argparse.Namespace) -> StageFactory:
    from .captioners import generate  # torch and transformers

    return partial(
        getattr(generate, generator.captioner),
        model=args.caption_model,
        prompt=args.caption_prompt,
        decoding=Decoding(args.captions_per_view, args.top_p, args.temperature, args.max_new_tokens),
        views_per_batch=args.caption_batch,
        seed=args.seed,
        device=args.device,
        dtype=args.dtype,
        device_map=args.device_map,
        hub=hub_pairs(args, *ANYWHERE),
    )


CAPTIONERS: dict[str, Callable[[argparse.Namespace], StageFactory]] = {
    "metadata": lambda args: partial(MetadataCaptioner, num_captions=args.metadata_captions, seed=args.seed),
    "labels": lambda args: partial(
        LabelsCaptioner, vocabulary=args.vocabulary, num_names=args.label_captions, **tower(args)
    ),
    "recorded": lambda args: partial(
        RecordedCaptioner, file=str(args.captions), columns=args.caption_columns, made_by=args.captions_made_by
    ),
    **{name: partial(_generator, generator) for name, generator in GENERATORS.items()},
}


ANYWHERE = ("token", "cache_dir")  # the options of hub names that hold for the meshes and all models
DEFAULT_TOWER = "open_clip:ViT-L-14/openai"  # CLIP ViT-L ranks in ULIP-2; its weights are OpenAI's
# What the two published datasets show: one ring, at one scale, on black.
_PUBLISHED = PUBLISHED_RING | {"elevation": [PUBLISHED_RING["elevation"]], "size": 224, "background": [0, 0, 0]}
PRESETS: dict[str, dict[str, Any]] = {
    "ulip-objaverse": _PUBLISHED | {"views": 12, "depth": False},
    "ulip-shapenet": _PUBLISHED | {"views": 30, "depth": True},
}


def parse_stage_arguments(parser: argparse.ArgumentParser, arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse a command line whose `--preset` decides what it does not say itself."""
    presets = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    presets.add_argument("--preset", choices=sorted(PRESETS))
    preset = presets.parse_known_args(arguments)[0].preset
    parser.set_defaults(**PRESETS.get(preset, {}))
    args = parser.parse_args(arguments)
    if len(set(args.elevation)) < len(args.elevation):
        parser.error("argument --elevation: the same ring twice")
    asked = [name for name in args.captioner if name in GENERATORS]
    if len(asked) > 1:
        parser.error(f"argument --captioner: {' and '.join(asked)} share their options; choose one of them")
    if ("recorded" in args.captioner) != (args.captions is not None):
        parser.error("argument --captions: it goes with --captioner recorded, and that with it")
    if args.captions is not None and not args.captions.is_file():
        parser.error(f"argument --captions: there is no file {args.captions}")
    if args.hidden and not args.features:
        parser.error("argument --hidden: it is stored with the features, which --no-features leaves out")
    if args.caption_model and not asked:
        parser.error(f"argument --caption-model: goes with --captioner {', '.join(GENERATORS)}")
    return args


def add_stage_arguments(parser: argparse.ArgumentParser) -> None:
    """The options on which the rows depend."""
    meshes = parser.add_argument_group("meshes")
    add = meshes.add_argument
    add("--max-faces", type=positive, default=MAX_FACES, help="refuse larger meshes [%(default)s]")
    add("--max-bytes", type=positive, default=MAX_BYTES, help="refuse larger files [%(default)s]")
    add("--strict", action="store_true", help="refuse meshes that lack a texture or material file")
    add(
        "--up-axis",
        choices=(*UP_AXES, AUTO_AXIS),
        default=AUTO_AXIS,
        help="what points up in the meshes, which are turned y up; auto: what the format fixes (glTF: y), else y; a "
        "rotation in objects.csv goes before it [%(default)s]",
    )
    add("--num-points", type=positive, default=10_000, help="points per shape [%(default)s]")
    add("--seed", type=int, default=0, help="of points, templates and sampled captions [%(default)s]")

    views = parser.add_argument_group("views")
    add = views.add_argument
    add(
        "--preset",
        choices=sorted(PRESETS),
        help="views as in a published dataset; options given win. " + "; ".join(map(describe_preset, PRESETS)),
    )
    add("--views", type=positive, default=12, help="views on a ring around the shape [%(default)s]")
    add("--size", type=positive, default=224, help="pixels per side of a view [%(default)s]")
    add(
        "--elevation",
        type=elevation,
        nargs="+",
        default=[ELEVATION],
        metavar="DEGREES",
        help=f"of the cameras above the horizon, a ring for each [{ELEVATION:g}]",
    )
    add("--fov", type=float, default=FOV, help="angle of view, degrees [%(default)s]")
    add("--fill", type=float, default=FILL, help="share of the frame that the object takes [%(default)s]")
    add(
        "--fit",
        choices=["view", "ring"],
        default=FIT,
        help="what --fill holds for: every view, or the largest of a full turn, so that all have one scale "
        "[%(default)s]",
    )
    add("--background", type=byte, nargs=3, default=[0, 0, 0], metavar=("R", "G", "B"), help="[0 0 0]")
    add("--image-format", choices=sorted(IMAGE_FORMATS), default="webp", help="of the stored views [%(default)s]")
    add("--quality", type=positive, default=90, help="of webp and jpeg, 1 to 100 [%(default)s]")
    add("--depth", action=argparse.BooleanOptionalAction, default=False, help="also store depth images [no]")
    add("--renderer", choices=["auto", "numba", "egl"], default="auto", help="[%(default)s]")

    captions = parser.add_argument_group("captions")
    add = captions.add_argument
    add("--captioner", nargs="+", choices=list(CAPTIONERS), default=["metadata", "labels"], help="[metadata labels]")
    add(
        "--vocabulary",
        default="objaverse_lvis",
        help="names for 'labels': list of the package or text file [%(default)s]",
    )
    add("--label-captions", type=positive, default=2, help="names per view, for 'labels' [%(default)s]")
    add("--captions", type=Path, metavar="FILE", help=f"made elsewhere, for 'recorded': {', '.join(SUFFIXES)}")
    add(
        "--caption-columns",
        nargs="+",
        metavar="NAME",
        help=f"those of FILE that hold captions [of {', '.join(CAPTION_COLUMNS)} which there are]",
    )
    add("--captions-made-by", default="", metavar="TEXT", help="who or what made those of FILE, for the dataset card")
    add(
        "--caption-sources",
        action="store_true",
        help="also store which captioner said each caption, so that a training can choose",
    )
    add("--metadata-captions", type=positive, default=6, help="captions per object, for 'metadata' [%(default)s]")

    generation = parser.add_argument_group(
        f"captions by a model ({', '.join(GENERATORS)})",
        "ULIP-2 draws ten captions per view; it published neither prompt nor decoding, so that the rest is ours.",
    )
    add = generation.add_argument
    models = ", ".join(f"{name}: {captioner.model}" for name, captioner in GENERATORS.items())
    add("--caption-model", metavar="MODEL", help=f"folder or hub name [{models}]")
    add("--caption-prompt", metavar="TEXT", help="what it is told, and no part of the captions [see the manifest]")
    add("--captions-per-view", type=positive, default=Decoding.captions_per_view, help="[%(default)s]")
    add("--top-p", type=share, default=Decoding.top_p, help="of nucleus sampling [%(default)s]")
    add("--temperature", type=above_zero, default=Decoding.temperature, help="of sampling [%(default)s]")
    add("--max-new-tokens", type=positive, default=Decoding.max_new_tokens, help="of a caption [%(default)s]")
    add("--caption-batch", type=positive, default=12, help="views of an object at once [%(default)s]")
    add("--device-map", help="such as auto: spread the captioning model over the GPUs of a process")

    ranking = parser.add_argument_group("ranking and features")
    add = ranking.add_argument
    add(
        "--no-ranking",
        dest="ranking",
        action="store_false",
        help="leave captions in the order of the captioners, without scores; with --no-features, and without the "
        "captioner 'labels', no tower is loaded",
    )
    add(
        "--tower",
        default=DEFAULT_TOWER,
        help="dual encoder that ranks captions, names labels and gives the features: open_clip:MODEL/TAG, or a folder "
        "or hub name of transformers [%(default)s]",
    )
    add("--device", help="of the models, such as cpu or cuda [a GPU if there is one]")
    add(
        "--dtype",
        choices=DTYPES,
        default="auto",
        help="of the models; auto: bfloat16 where it is native [%(default)s]",
    )
    add(
        "--hidden",
        action="store_true",
        help="also store what the last layer of the tower's image classifier sees, to fit a linear map on",
    )
    add("--no-features", dest="features", action="store_false", help="do not store the tower's embeddings")


def elevation(text: str) -> float:
    if not abs(number := float(text)) <= 90:
        raise argparse.ArgumentTypeError(f"expected a number from -90 to 90, got {text}")
    return number


def describe_preset(name: str) -> str:
    options = PRESETS[name]
    depth = ", RGB and depth" if options["depth"] else ""
    return f"{name}: {options['views']} views, {options['size']} px{depth}, black"


def share(text: str) -> float:
    if not 0 < (number := float(text)) <= 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and up to 1, got {text}")
    return number


def above_zero(text: str) -> float:
    if not 0 < (number := float(text)) < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return number


def byte(text: str) -> int:
    if not 0 <= (number := int(text)) <= 255:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 255, got {text}")
    return number


def build_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the rows depend on, as the manifest keeps it."""
    copied = (
        "num_points views size elevation fov fill fit background image_format quality depth features renderer dtype"
    )
    settings = {name: getattr(args, name) for name in copied.split()}
    settings |= {"captioners": args.captioner, "tower": local_name(args.tower) if needs_tower(args) else None}
    settings |= {} if args.ranking else {"ranking": False}
    if "labels" in args.captioner:
        settings |= {"vocabulary": local_name(args.vocabulary), "label_captions": args.label_captions}
    if "recorded" in args.captioner:
        settings["recorded_captions"] = {
            "file": args.captions.name,
            "sha256": sha256_of(args.captions),
            "columns": args.caption_columns,
            "made_by": args.captions_made_by,
        }
    if "metadata" in args.captioner:
        settings |= {"metadata_captions": args.metadata_captions}
    for captioner in (GENERATORS[name] for name in args.captioner if name in GENERATORS):
        settings |= {"caption_model": local_name(args.caption_model or captioner.model)}
        settings |= {name: getattr(args, name) for name in asdict(Decoding())} | {"caption_batch": args.caption_batch}
        settings["caption_prompt"] = captioner.prompt if args.caption_prompt is None else args.caption_prompt
    # a build begun before there was this option goes on
    settings |= {} if args.up_axis == AUTO_AXIS else {"up_axis": args.up_axis}
    settings |= {"hidden": True} if args.hidden else {}
    settings |= {"caption_sources": True} if args.caption_sources else {}
    return settings | mesh_limits(args) | {"seed": args.seed}


def mesh_limits(args: argparse.Namespace) -> dict[str, Any]:
    """What `ReadMesh` accepts."""
    return {"max_faces": args.max_faces, "max_bytes": args.max_bytes, "strict": args.strict}


def tower(args: argparse.Namespace) -> dict[str, Any]:
    """What every stage with a tower is made with: they share one."""
    return {"tower": args.tower, "device": args.device, "dtype": args.dtype, "hub": hub_pairs(args, *ANYWHERE)}


def needs_tower(args: argparse.Namespace) -> bool:
    """Whether captions are ranked or named by a tower, or its embeddings are stored."""
    return args.ranking or args.features or "labels" in args.captioner


def build_stages(args: argparse.Namespace) -> list[StageFactory]:
    """The stages in their order, to be made by each worker."""
    said = args.caption_sources
    return [
        partial(ReadMesh, folder=str(args.meshes), up_axis=args.up_axis, **mesh_limits(args)),
        partial(SamplePoints, num_points=args.num_points, seed=args.seed),
        partial(
            RenderViews,
            cameras=camera_rings(args.views, args.elevation, fov=args.fov, fill=args.fill, fit=args.fit),
            size=args.size,
            image_format=args.image_format,
            quality=args.quality,
            background=tuple(args.background),
            renderer=args.renderer,
            depth=args.depth,
        ),
        *([partial(EmbedViews, **tower(args), hidden=args.hidden)] if needs_tower(args) else []),
        *(CAPTIONERS[name](args) for name in args.captioner),
        *(
            [partial(RankCaptions, **tower(args), sources=said)]
            if args.ranking
            else [partial(KeepCaptions, sources=said)]
        ),
        *([partial(EmbedCaptions, **tower(args))] if args.features and not args.ranking else []),
    ]
