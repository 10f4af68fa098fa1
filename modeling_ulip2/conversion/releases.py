"""What is known of the published checkpoints, for the cards of their conversions: origin, licence, accuracy.

Figures are those that the authors publish (papers and repositories named with each), not measurements of this package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig

BIGG = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
_ULIP_SOURCE = "https://github.com/salesforce/ULIP and https://huggingface.co/datasets/SFXX/ulip"
_ULIP2_DATA = (
    "ULIP-Objaverse (798,759 shapes, ODC-By) and ULIP-ShapeNet (52,460 shapes, ShapeNet's terms): renders captioned "
    "by BLIP-2, captions ranked by CLIP"
)
_ULIP1_DATA = "ShapeNet55 (52,460 shapes, ShapeNet's terms): renders, and captions from the metadata in templates"
_FOUR_SETS = "Objaverse, ShapeNet, 3D-FUTURE and ABO, as prepared by OpenShape"
_NONE = "none published with the file"


@dataclass(frozen=True)
class Release:
    """One published checkpoint, or several that share a layout and a size.

    title: what it is.
    layout: name of the layout of its file.
    model_type: of its encoder; None: the file holds a tower alone.
    fields: configuration fields by which it is told from others.
    projection_dim: width of the shared space; None: any.
    file_name: pattern of its file's name, where nothing in the file tells it from another release.
    source, license, paper, training_data: of the weights; the licence as an SPDX identifier.
    accuracy: rows "task", "figures" of what the authors report, in per cent.
    tower: hub name of the image-text model, where transformers can load it.
    tower_note: which image-text model it is.
    num_points, axes: how the model's clouds are prepared, see `Ulip2FeatureExtractor`.
    """

    title: str
    layout: str
    model_type: str | None
    source: str
    license: str
    paper: str
    training_data: str
    accuracy: tuple[tuple[str, str], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    projection_dim: int | None = None
    file_name: str | None = None
    tower: str | None = None
    tower_note: str = ""
    num_points: int = 10000
    axes: str = "xyz"


def _ulip(title: str, model_type: str, **fields: Any) -> Release:
    return Release(title, "ULIP", model_type, **({"source": _ULIP_SOURCE, "license": "bsd-3-clause"} | fields))


_BIGG_NOTE = "OpenCLIP ViT-bigG-14, laion2b_s39b_b160k"
_SLIP_NOTE = "SLIP ViT-B/16, trained for 100 epochs on YFCC15M; the file holds it"
_ULIP1 = dict(
    paper="arXiv 2212.05171",
    training_data=_ULIP1_DATA,
    projection_dim=512,
    tower_note=_SLIP_NOTE,
    num_points=8192,
)
_ULIP2 = dict(
    paper="arXiv 2305.08275",
    training_data=_ULIP2_DATA,
    projection_dim=1280,
    tower=BIGG,
    tower_note=_BIGG_NOTE,
)


def _modelnet40(top1: str, top5: str) -> tuple[tuple[str, str], ...]:
    return (("ModelNet40, zero-shot, top-1 / top-5", f"{top1} / {top5}"),)


def _lvis_modelnet40(lvis: str, modelnet40: str) -> tuple[tuple[str, str], ...]:
    return (
        ("Objaverse-LVIS, zero-shot, top-1 / top-5", lvis),
        ("ModelNet40, zero-shot, top-1 / top-5", modelnet40),
    )


def _uni3d(size: str, hidden_size: int, accuracy: tuple[tuple[str, str], ...]) -> Release:
    return Release(
        f"Uni3D-{size}",
        "Uni3D",
        "ulip2_uni3d",
        source="https://huggingface.co/BAAI/Uni3D",
        license="mit",
        paper="arXiv 2310.06773",
        training_data=_FOUR_SETS + " (the files named no-lvis: without Objaverse-LVIS)",
        accuracy=accuracy,
        fields={"hidden_size": hidden_size},
        projection_dim=1024,
        tower_note="EVA02-E-14-plus, laion2b_s9b_b144k (OpenCLIP); transformers has no class for it",
    )


def _openshape(title: str, layout: str, projection_dim: int, **fields: Any) -> Release:
    return Release(
        title,
        layout,
        "ulip2_ppat",
        license="apache-2.0",
        paper="arXiv 2305.10764",
        training_data=_FOUR_SETS,
        projection_dim=projection_dim,
        **fields,
    )


RELEASES: tuple[Release, ...] = (
    _ulip(
        "ULIP-2 Point-BERT, 10k coloured points",
        "ulip2_pointbert",
        fields={"in_channels": 6, "hidden_size": 384, "num_hidden_layers": 18},
        accuracy=_lvis_modelnet40("50.6 / 79.1", "84.7 / 97.1"),
        **_ULIP2,
    ),
    _ulip(
        "ULIP-2 Point-BERT, 8,192 points without colour (the encoder of X-InstructBLIP)",
        "ulip2_pointbert",
        fields={"in_channels": 3, "hidden_size": 384, "num_hidden_layers": 18},
        accuracy=(("Captioning of Objaverse shapes by X-InstructBLIP with this encoder, CIDEr", "160.5"),),
        num_points=8192,
        **_ULIP2,
    ),
    _ulip(
        "ULIP-2 PointNeXt-S, 2k points",
        "ulip2_pointnext",
        fields={"in_channels": 4, "width": 32},
        accuracy=(("ScanObjectNN PB_T50_RS after fine-tuning, overall / class-average", "91.1 / 90.3"),),
        num_points=2048,
        **_ULIP2,
    ),
    _ulip(
        "ULIP-2 Point-BERT, 8k points, aligned with SLIP",
        "ulip2_pointbert",
        fields={"in_channels": 3, "hidden_size": 384, "num_hidden_layers": 12},
        file_name=r".*ulip-?_?2.*",
        accuracy=(("ModelNet40, zero-shot, top-1 / top-5", _NONE),),
        **_ULIP1 | {"paper": "arXiv 2305.08275", "training_data": _ULIP2_DATA},
    ),
    _ulip(
        "ULIP Point-BERT",
        "ulip2_pointbert",
        fields={"in_channels": 3, "hidden_size": 384, "num_hidden_layers": 12},
        accuracy=_modelnet40("60.3", "84.0"),
        **_ULIP1,
    ),
    _ulip(
        "ULIP PointNet++ (SSG)",
        "ulip2_pointnet2",
        fields={"multi_scale": False},
        accuracy=_modelnet40("57.7", "78.9"),
        **_ULIP1,
    ),
    _ulip("ULIP PointMLP", "ulip2_pointmlp", fields={"embed_dim": 64}, accuracy=_modelnet40("60.0", "79.4"), **_ULIP1),
    _ulip(
        "ULIP PointNeXt-S",
        "ulip2_pointnext",
        fields={"in_channels": 4, "width": 32},
        accuracy=_modelnet40("56.2", "77.0"),
        **_ULIP1,
    ),
    _uni3d("Ti", 192, ()),
    _uni3d("S", 384, ()),
    _uni3d(
        "B",
        768,
        (*_lvis_modelnet40("51.7 / 80.8", "86.3 / 97.9"), ("the same without LVIS", "45.9 / 74.8; 86.1 / 98.7")),
    ),
    _uni3d(
        "L",
        1024,
        (*_lvis_modelnet40("53.1 / 81.5", "86.3 / 98.3"), ("the same without LVIS", "46.2 / 74.7; 86.6 / 97.8")),
    ),
    _uni3d(
        "g",
        1408,
        (
            *_lvis_modelnet40("53.5 / 82.0", "87.3 / 99.2"),
            ("the best of the released files", "55.3 / 82.9; 88.2 / 99.3"),
            ("without LVIS", "47.2 / 76.1; 86.8 / 98.4"),
        ),
    ),
    _openshape(
        "OpenShape PPAT, aligned with OpenCLIP ViT-bigG-14",
        "OpenShape",
        1280,
        source="https://huggingface.co/OpenShape/openshape-pointbert-vitg14-rgb",
        accuracy=_lvis_modelnet40("46.8 / 77.0", "84.4 / 98.0"),
        fields={"num_hidden_layers": 12, "intermediate_size": 1536},
        tower=BIGG,
        tower_note=_BIGG_NOTE,
        axes="xzy",
    ),
    _openshape(
        "OpenShape PPAT, aligned with CLIP ViT-L/14",
        "OpenShape (first release)",
        768,
        source="https://huggingface.co/OpenShape/openshape-pointbert-vitl14-rgb",
        fields={"num_hidden_layers": 12, "intermediate_size": 1024},
        tower="openai/clip-vit-large-patch14",
        tower_note="CLIP ViT-L/14 of OpenAI",
    ),
    _openshape(
        "OpenShape PPAT, aligned with CLIP ViT-B/32",
        "OpenShape (first release, without projection)",
        512,
        source="https://huggingface.co/OpenShape/openshape-pointbert-vitb32-rgb",
        fields={"num_hidden_layers": 12, "intermediate_size": 1024},
        tower="openai/clip-vit-base-patch32",
        tower_note="CLIP ViT-B/32 of OpenAI",
    ),
    Release(
        "Point-BERT after its self-supervised pre-training",
        "Point-BERT pre-training",
        "ulip2_pointbert",
        source="https://github.com/lulutang0608/Point-BERT",
        license="mit",
        paper="arXiv 2111.14819",
        training_data="ShapeNet55 (ShapeNet's terms)",
        fields={"hidden_size": 384, "num_hidden_layers": 12},
        num_points=8192,
    ),
    Release(
        "SLIP ViT-B/16",
        "SLIP",
        None,
        source="https://github.com/facebookresearch/SLIP",
        license="mit",
        paper="arXiv 2112.12750",
        training_data="YFCC15M, 100 epochs",
        fields={"vision_hidden_size": 768, "vision_num_hidden_layers": 12},
        accuracy=(("ImageNet, zero-shot, top-1", "45.0"),),
    ),
)


def find_release(
    layout: str, model_type: str | None, config: PreTrainedConfig, projection_dim: int | None, file_name: str
) -> Release | None:
    """The release that a recognised file is, or None if no published file has its size.

    Args:
        layout: name of the layout.
        model_type: of the encoder.
        config: of the encoder, or of the tower.
        projection_dim: width of the shared space.
        file_name: of the file.
    """
    for release in RELEASES:
        if layout.removesuffix(" in X-InstructBLIP") != release.layout or model_type != release.model_type:
            continue
        if release.projection_dim is not None and release.projection_dim != projection_dim:
            continue
        if release.file_name is not None and not re.fullmatch(release.file_name, file_name, re.IGNORECASE):
            continue
        if all(getattr(config, name) == value for name, value in release.fields.items()):
            return release
    return None
