"""What is known of the published checkpoints by the sizes of their tensors: origin, license, accuracy.

`catalog.py` has them by name, with the place where each lies. Figures are those that the authors publish, not
measurements of this package; they stand in `published.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .published import published_accuracy

if TYPE_CHECKING:  # so that the table is printed at once
    from transformers import PreTrainedConfig

BIGG = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"
# The image-text model of ULIP's first generation, as `catalog.py` calls it.
SLIP = "slip-vitb16"
# Name of the layout of a file that holds ULIP's encoder and no projection.
ENCODER_ALONE = "ULIP, encoder alone"
FOUR_SETS, NO_LVIS = (f"Objaverse{less} + ShapeNet + ABO + 3D-FUTURE" for less in ("", " without LVIS"))
_ULIP_SOURCE = "https://github.com/salesforce/ULIP and https://huggingface.co/datasets/SFXX/ulip"
_ULIP2_DATA = (
    "ULIP-Objaverse (798,759 shapes, ODC-By) and ULIP-ShapeNet (52,460 shapes, ShapeNet's terms): renders captioned "
    "by BLIP-2, captions ranked by CLIP"
)
_ULIP1_DATA = "ShapeNet55 (52,460 shapes, ShapeNet's terms): renders, and captions from the metadata in templates"
_FOUR_SETS = "Objaverse, ShapeNet, 3D-FUTURE and ABO, as prepared by OpenShape"


@dataclass(frozen=True)
class Release:
    """One published checkpoint, or several that share a layout and a size.

    title: what it is.
    layout: name of the layout of its file.
    model_type: of its encoder; None: the file holds a tower alone.
    fields: configuration fields by which it is told from others.
    projection_dim: width of the shared space; None: any.
    file_name: pattern of its file's name, where nothing in the file tells it from another release.
    encoder_alone: whether its file may hold the encoder without the projection.
    source, license, paper, training_data: of the weights; the license as an SPDX identifier.
    published: model and pre-training (None: any) under which `published.json` has what the authors report.
    tower: hub name of the image-text model; `open_clip:MODEL/TAG` where transformers has no class for it.
    tower_release: name in the catalog of the image-text model, where it has to be converted itself.
    tower_note: which image-text model it is.
    num_points, axes, sampling: how the model's clouds are prepared, see `Ulip2FeatureExtractor`.
    """

    title: str
    layout: str
    model_type: str | None
    source: str
    license: str
    paper: str
    training_data: str
    published: tuple[tuple[str, str | None], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    projection_dim: int | None = None
    file_name: str | None = None
    encoder_alone: bool = False
    tower: str | None = None
    tower_release: str | None = None
    tower_note: str = ""
    num_points: int = 10000
    axes: str = "xyz"
    sampling: str = "random"

    def may_be_called(self, file_name: str) -> bool:
        """Whether its file may have this name."""
        return self.file_name is None or re.fullmatch(self.file_name, file_name, re.IGNORECASE) is not None

    @property
    def accuracy(self) -> list[tuple[str, str]]:
        """Rows "task", "figures" of what the authors report, in per cent."""
        return [row for key in self.published for row in published_accuracy(*key)]


def _ulip(title: str, model_type: str, **fields: Any) -> Release:
    return Release(
        title, "ULIP", model_type, **({"source": _ULIP_SOURCE, "license": "bsd-3-clause", "sampling": "fps"} | fields)
    )


_BIGG_NOTE = "OpenCLIP ViT-bigG-14, laion2b_s39b_b160k"
_SLIP_NOTE = "SLIP ViT-B/16, trained for 100 epochs on YFCC15M"
_ULIP1 = dict(
    paper="arXiv 2212.05171",
    training_data=_ULIP1_DATA,
    projection_dim=512,
    tower_release=SLIP,
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


def _uni3d(size: str, hidden_size: int, *published: tuple[str, str]) -> Release:
    return Release(
        f"Uni3D-{size}",
        "Uni3D",
        "ulip2_uni3d",
        source="https://huggingface.co/BAAI/Uni3D",
        license="mit",
        paper="arXiv 2310.06773",
        training_data=_FOUR_SETS + " (the files named no-lvis: without Objaverse-LVIS)",
        published=published,
        fields={"hidden_size": hidden_size},
        projection_dim=1024,
        tower="open_clip:EVA02-E-14-plus/laion2b_s9b_b144k",
        tower_note="OpenCLIP EVA02-E-14-plus, laion2b_s9b_b144k; open_clip runs it, transformers has no class for it",
    )


def _openshape(title: str, layout: str, projection_dim: int, **fields: Any) -> Release:
    return Release(
        title,
        layout,
        "ulip2_ppat",
        license="apache-2.0",
        paper="arXiv 2305.10764",
        projection_dim=projection_dim,
        **{"training_data": _FOUR_SETS} | fields,
    )


RELEASES: tuple[Release, ...] = (
    _ulip(
        "ULIP-2 Point-BERT, 10k colored points",
        "ulip2_pointbert",
        fields={"in_channels": 6, "hidden_size": 384, "num_hidden_layers": 18},
        published=(("ULIP-2, Point-BERT", "Objaverse + ShapeNet"),),
        **_ULIP2,
    ),
    _ulip(
        "ULIP-2 Point-BERT, 8,192 points without color (the encoder of X-InstructBLIP)",
        "ulip2_pointbert",
        fields={"in_channels": 3, "hidden_size": 384, "num_hidden_layers": 18},
        published=(("X-InstructBLIP with ULIP-2, Point-BERT", None),),
        num_points=8192,
        **_ULIP2,
    ),
    _ulip(
        "ULIP-2 PointNeXt-S, 2k points",
        "ulip2_pointnext",
        fields={"in_channels": 4, "width": 32},
        published=(("ULIP-2, PointNeXt-S", None),),
        num_points=2048,
        **_ULIP2,
    ),
    _ulip(
        "ULIP-2 Point-BERT, 8k points, aligned with SLIP",
        "ulip2_pointbert",
        fields={"in_channels": 3, "hidden_size": 384, "num_hidden_layers": 12},
        file_name=r".*ulip-?_?2.*",
        **_ULIP1
        | {
            "paper": "arXiv 2305.08275",
            "training_data": "ULIP-Objaverse, as its file's name says; the authors describe it nowhere",
        },
    ),
    _ulip(
        "Point-BERT of PointLLM: ULIP-2's training on 8,192 colored points",
        "ulip2_pointbert",
        fields={"in_channels": 6, "hidden_size": 384, "num_hidden_layers": 12},
        projection_dim=768,
        encoder_alone=True,
        source="https://huggingface.co/RunsenXu/PointLLM_7B_v1.1_init and https://github.com/InternRobotics/PointLLM",
        license="cc-by-nc-sa-4.0",
        paper="arXiv 2308.16911",
        training_data="Objaverse's colored clouds with renders and their captions, as ULIP-2 makes them",
        tower="laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
        tower_note="OpenCLIP ViT-L/14, datacomp_xl_s13b_b90k, as the authors say in their issues 1 and 26",
        num_points=8192,
        sampling="random",
    ),
    _ulip(
        "ULIP Point-BERT",
        "ulip2_pointbert",
        fields={"in_channels": 3, "hidden_size": 384, "num_hidden_layers": 12},
        published=(("ULIP, Point-BERT", None),),
        **_ULIP1,
    ),
    _ulip(
        "ULIP PointNet++ (SSG)",
        "ulip2_pointnet2",
        fields={"multi_scale": False},
        published=(("ULIP, PointNet++ (SSG)", None),),
        **_ULIP1,
    ),
    _ulip(
        "ULIP PointMLP", "ulip2_pointmlp", fields={"embed_dim": 64}, published=(("ULIP, PointMLP", None),), **_ULIP1
    ),
    _ulip(
        "ULIP PointNeXt-S",
        "ulip2_pointnext",
        fields={"in_channels": 4, "width": 32},
        published=(("ULIP, PointNeXt-S", None),),
        **_ULIP1,
    ),
    _uni3d("Ti", 192),
    _uni3d("S", 384),
    _uni3d("B", 768, ("Uni3D-B", FOUR_SETS), ("Uni3D-B", NO_LVIS)),
    _uni3d("L", 1024, ("Uni3D-L", FOUR_SETS), ("Uni3D-L", NO_LVIS)),
    _uni3d("g", 1408, ("Uni3D-g", FOUR_SETS), ("Uni3D-g", NO_LVIS), ("Uni3D-g, best of the released", FOUR_SETS)),
    _openshape(
        "OpenShape PPAT, aligned with OpenCLIP ViT-bigG-14",
        "OpenShape",
        1280,
        source="https://huggingface.co/OpenShape/openshape-pointbert-vitg14-rgb",
        published=(("OpenShape, Point-BERT", FOUR_SETS),),
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
        training_data="Objaverse without LVIS",
        fields={"num_hidden_layers": 12, "intermediate_size": 1024},
        tower="openai/clip-vit-large-patch14",
        tower_note="CLIP ViT-L/14 of OpenAI",
        axes="xyz",  # said in the README of OpenShape/openshape-demo-support: y is up for L/14 and B/32, z for bigG
    ),
    _openshape(
        "OpenShape PPAT, aligned with CLIP ViT-B/32",
        "OpenShape (first release, without projection)",
        512,
        source="https://huggingface.co/OpenShape/openshape-pointbert-vitb32-rgb",
        training_data="Objaverse",
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
        fields={"in_channels": 3, "hidden_size": 384, "num_hidden_layers": 12},
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
        published=(("SLIP ViT-B/16, 100 epochs", None),),
    ),
)


def find_release(
    layout: str, model_type: str | None, config: PreTrainedConfig, projection_dim: int | None, file_name: str
) -> Release | None:
    """The release that a recognized file is, or None if no published file has its size.

    Args:
        layout: name of the layout.
        model_type: of the encoder.
        config: of the encoder, or of the tower.
        projection_dim: width of the shared space; None: the file holds no projection.
        file_name: of the file.
    """
    fitting = (release for release in RELEASES if fits(release, layout, model_type, config, projection_dim))
    return next((release for release in fitting if release.may_be_called(file_name)), None)


def fits(
    release: Release, layout: str, model_type: str | None, config: PreTrainedConfig, projection_dim: int | None
) -> bool:
    """Whether a file has the layout and the size of a release; arguments as for `find_release`."""
    alone = layout == ENCODER_ALONE
    family = "ULIP" if alone else layout.removesuffix(" in X-InstructBLIP")
    if (family, model_type) != (release.layout, release.model_type) or (alone and not release.encoder_alone):
        return False
    if release.projection_dim is not None and not alone and release.projection_dim != projection_dim:
        return False
    return all(getattr(config, name) == value for name, value in release.fields.items())
