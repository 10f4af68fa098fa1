"""The dataset card of a build: YAML that `load_dataset` and the hub read, and what a person should know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import DatasetInfo, Features
from datasets.info import DatasetInfosDict
from huggingface_hub import DatasetCardData, RepoCard

from modeling_ulip2.geometry.axes import AUTO_AXIS
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.markdown import markdown_table

from .schema import FEATURES_CONFIG, TRIPLETS_CONFIG, features_features, triplet_features

UNKNOWN_LICENSE = "unknown"


def dataset_card(title: str, manifest: Mapping[str, Any], totals: Mapping[str, Any], source: str = "") -> str:
    """README.md of a build.

    Args:
        title: what the dataset is called.
        manifest: `BuildFolder.manifest`.
        totals: `BuildFolder.totals()`.
        source: Markdown about where the meshes come from.
    """
    settings, stages = manifest["settings"], manifest["stages"]
    return "\n\n".join(
        [
            f"---\n{_metadata(title, settings, stages, totals)}\n---",
            f"# {title}",
            _introduction(settings, totals),
            _usage(settings),
            *([f"## Source\n\n{source.strip()}"] if source.strip() else []),
            _how(settings, stages),
            _columns(settings),
            _licenses(totals),
            _limits(totals),
            "",
        ]
    )


def add_features_to_card(path: Path, dim: int, *, depth: bool, count: int, size: int, data_size: int) -> None:
    """Let a folder's README.md tell of the config `features`, made later: its YAML, and nothing else of it.

    Args:
        path: the README; begun if there is none.
        dim, depth: as for `features_features`.
        count, size, data_size: rows, bytes of the files, bytes in memory.
    """
    card = RepoCard.load(path, ignore_metadata_errors=True) if path.is_file() else RepoCard("---\n{}\n---\n")
    kept = [entry for entry in card.data.get("configs") or [] if entry["config_name"] != FEATURES_CONFIG]
    if not kept:
        kept = [config_entry(TRIPLETS_CONFIG, default=True)]
    card.data["configs"] = [*kept, config_entry(FEATURES_CONFIG, default=False)]
    info = config_info(FEATURES_CONFIG, features_features(dim, depth=depth), count, size, data_size)
    infos = DatasetInfosDict.from_dataset_card_data(card.data)
    infos[FEATURES_CONFIG] = info
    infos.to_dataset_card_data(card.data)
    write_text(path, str(card))


def config_entry(name: str, default: bool) -> dict[str, Any]:
    """A card's entry for a config whose files lie in the folder of its name; `load_dataset` takes the default one."""
    chosen = {"default": True} if default else {}
    return {"config_name": name, "data_files": [{"split": "train", "path": f"{name}/train-*.parquet"}], **chosen}


def config_info(name: str, features: Features, count: int, size: int, data_size: int) -> DatasetInfo:
    """What a card says of a config's columns, rows, bytes of files and bytes in memory."""
    return DatasetInfo(
        config_name=name,
        features=features,
        splits=[{"name": "train", "num_bytes": data_size, "num_examples": count}],
        download_size=size,
        dataset_size=data_size,
    )


def _metadata(title: str, settings: Mapping[str, Any], stages: Mapping[str, Any], totals: Mapping[str, Any]) -> str:
    said = settings.get("caption_sources", False)
    schema = triplet_features(settings["num_points"], depth=settings["depth"], sources=said)
    schemas: dict[str, Features] = {TRIPLETS_CONFIG: schema}
    if settings["features"]:
        hidden = stages.get("EmbedViews", {}).get("hidden", 0)
        dim = (stages.get("RankCaptions") or stages["EmbedCaptions"])["dim"]
        schemas[FEATURES_CONFIG] = features_features(dim, hidden=hidden)
    count = totals.get("triplets", 0)
    licenses = sorted({name or UNKNOWN_LICENSE for name in totals.get("licenses", {})})
    data = DatasetCardData(
        pretty_name=title,
        license=licenses[0] if len(licenses) == 1 else licenses or None,
        language="en",
        task_categories=["zero-shot-classification", "feature-extraction"],
        tags=["3d", "point-cloud", "ulip-2", "multimodal"],
        size_categories=next((name for limit, name in SIZES if count < limit), "n>1T"),
        configs=[config_entry(config, default=config == TRIPLETS_CONFIG) for config in schemas],
    )
    sizes, data_sizes = totals.get("bytes", {}), totals.get("data_bytes", {})
    infos = {
        config: config_info(config, features, count, sizes.get(config, 0), data_sizes.get(config, 0))
        for config, features in schemas.items()
    }
    DatasetInfosDict(infos).to_dataset_card_data(data)
    return data.to_yaml()


SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
SIZES += [(10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B")]


def _introduction(settings: Mapping[str, Any], totals: Mapping[str, Any]) -> str:
    count = totals.get("triplets", 0)
    if "release" in settings:
        return (
            "Triplets of point cloud, views and captions, converted from their release with `modeling_ulip2`.\n\n"
            f"{count:,} shapes, each with {settings['num_points']:,} points; "
            f"{totals.get('captions', 0):,} captions in all."
        )
    return (
        "Triplets of point cloud, views and captions, as [ULIP-2](https://arxiv.org/abs/2305.08275) makes them from "
        "nothing but 3D files, built with `modeling_ulip2`.\n\n"
        f"{count:,} shapes, each with {settings['num_points']:,} colored points and {_num_views(settings)} views of "
        f"{settings['size']} x {settings['size']} pixels; {count * _num_views(settings):,} views and "
        f"{totals.get('captions', 0):,} captions in all."
    )


def _usage(settings: Mapping[str, Any]) -> str:
    lines = [
        "from datasets import load_dataset",
        "",
        f'triplets = load_dataset("…", "{TRIPLETS_CONFIG}", split="train")',
    ]
    if settings["features"]:
        lines.append(f'features = load_dataset("…", "{FEATURES_CONFIG}", split="train")')
    return "```python\n" + "\n".join(lines) + "\n```\n\n`streaming=True` works, too. Nothing but `datasets` is needed."


def _how(settings: Mapping[str, Any], stages: Mapping[str, Any]) -> str:
    if "release" in settings:
        ranked = f"Captions {_ranking(stages)}\n\n" if "RankCaptions" in stages else ""
        return f"## How it was made\n\nRead from the layout `{settings['release']}`. {ranked}{WHERE}"
    captioners = "\n".join(f"- `{name}`{_options(_captioner(stages, name))}" for name in settings["captioners"])
    return (
        "## How it was made\n\n"
        f"{_upright(settings)} Points are drawn uniformly from the surface, seed {settings['seed']}. "
        f"{_rings(settings)}, angle of "
        f"view {settings['fov']:g} degrees, stored as {settings['image_format'].upper()}"
        f"{'' if settings['image_format'] == 'png' else ' of quality ' + str(settings['quality'])}.\n\n"
        f"Captions come from:\n\n{captioners}\n\n{_sampling(settings, stages)}"
        f"and {_ranking(stages)}\n\n{WHERE}"
    )


WHERE = "All settings are in `manifest.json`. What could not be used is in `errors.parquet`, with the reason."


def _ranking(stages: Mapping[str, Any]) -> str:
    if "RankCaptions" not in stages:
        return "stand in the order in which they were made, without scores."
    tower = stages["RankCaptions"]
    return (
        f"are ranked by their cosine similarity with the view under `{tower.get('tower', '?')}` (fingerprint "
        f"`{tower.get('fingerprint', '?')}`, {tower.get('dtype', '?')}). All are kept with their scores; choose top-k "
        "when training." + (f"\n\n{CONSE}" if tower.get("model_type") == "conse" else "")
    )


def _sampling(settings: Mapping[str, Any], stages: Mapping[str, Any]) -> str:
    if not any("top_p" in _captioner(stages, name) for name in settings["captioners"]):
        return ""
    return (
        "The captioning model sees each view alone. ULIP-2 published neither prompt nor decoding: these are ours. "
        "Repeated and degenerate captions were left out.\n\n"
    )


def _num_views(settings: Mapping[str, Any]) -> int:
    return settings["views"] * len(settings["elevation"])


def _upright(settings: Mapping[str, Any]) -> str:
    axis = settings.get("up_axis", AUTO_AXIS)
    if axis == AUTO_AXIS:
        return "Meshes stand as in their files, taken to be y up as glTF fixes it, or as `objects.csv` turns them."
    return f"Meshes are {axis} up in their files and were turned y up, but for those that `objects.csv` turns."


def _rings(settings: Mapping[str, Any]) -> str:
    elevations = [f"{elevation:g}" for elevation in settings["elevation"]]
    rings = "a horizontal ring" if len(elevations) == 1 else f"{len(elevations)} horizontal rings"
    return (
        f"The views lie on {rings}, {360 / settings['views']:g} degrees apart, {' and '.join(elevations)} degrees "
        "above the horizon"
    )


CONSE = (
    "That tower is a ConSE pair (Norouzi et al. 2013): an image is embedded as the mean of the sentence embeddings of "
    "the ImageNet classes that a classifier sees in it. It was never trained on image-text pairs and is no CLIP: its "
    "scores say how well a caption agrees with ImageNet names, not whether it describes the picture."
)


def _captioner(stages: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return stages.get(f"{name.capitalize()}Captioner", {})


def _options(options: Mapping[str, Any]) -> str:
    told = ("model_type", "fingerprint", "dtype")  # of the tower, with the ranking
    shown = {k: v["source"] if isinstance(v, Mapping) else v for k, v in options.items() if k not in told}
    return f" ({', '.join(f'{key}: {value}' for key, value in shown.items())})" if shown else ""


def _columns(settings: Mapping[str, Any]) -> str:
    number = "" if "release" in settings else f"{_num_views(settings)} "
    rows = [
        ("id, source, name, license, creator", "strings; `id` is the mesh's path in its folder"),
        (
            "xyz",
            f"({settings['num_points']}, 3) float16, y up, in the file's unit; a shape that half precision "
            "could not hold is centered or scaled by a power of two",
        ),
        ("rgb", f"({settings['num_points']}, 3) uint8, sRGB"),
        (
            "views",
            f"{number}images; `azimuths` and `elevations` are their cameras' angles in degrees, azimuth 0 looks at "
            "the +z side",
        ),
        (
            "distances, shifts, fov, size, target",
            "the rest of the cameras: distance from the point that they look at, how far they were then moved to "
            "their right and upwards, full angle of view in degrees, pixels per side, that point; in the frame and "
            "unit of `xyz`",
        ),
        ("captions, caption_scores", "one list per view, best caption first"),
    ]
    if settings.get("caption_sources"):
        rows.append(("caption_sources", "the captioner that said each caption first, in the same order"))
    if settings["depth"]:
        rows.append(
            ("depths, depth_scale", "16-bit PNGs; pixel x scale is the distance from the camera plane, 0 is empty")
        )
    if settings["features"]:
        rows.append(
            (
                f"config `{FEATURES_CONFIG}`: id, image_embeds, text_embeds",
                "the tower's normalized embeddings of each view and each caption, float16, in the same order",
            )
        )
    return "## Columns\n\n" + "\n".join(markdown_table(["column", "content"], rows)).rstrip()


def _licenses(totals: Mapping[str, Any]) -> str:
    tables = [*count_table("license", totals.get("licenses", {})), *count_table("source", totals.get("sources", {}))]
    return (
        "## Licenses\n\nEvery row names the creator and the license of its shape, where the source states them; "
        "points and views are derived from it.\n\n" + "\n".join(tables).rstrip()
    )


def count_table(head: str, counts: Mapping[str, int]) -> list[str]:
    """Lines of a Markdown table: how many shapes there are of each license, source and the like."""
    return markdown_table(
        [head, "shapes"], [(name or "unknown", f"{count:,}") for name, count in sorted(counts.items())]
    )


def _limits(totals: Mapping[str, Any]) -> str:
    errors = totals.get("errors", {})
    lines = ["Captions are made by a program and are wrong at times; no person has read them."]
    if errors:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(errors.items()))
        lines.append(f"{sum(errors.values()):,} meshes could not be used: {reasons}.")
    if totals.get("warned"):
        lines.append(
            f"{totals['warned']:,} shapes lack a texture, a recorded caption or the like; "
            "`warnings.parquet` names them."
        )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)
