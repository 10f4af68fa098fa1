"""Presets of zero-shot protocols: what each project shows its models of a benchmark's files.

A protocol describes the file: what is up in it, whether its clouds are normalized already, which colors are shown. All
else is the model's own and stands in its feature extractor: order of the axes, normalization, resampling, the gray of
clouds without color. So a model is tested as it was trained, whichever project's encoder it has.

Published figures are comparable only under the protocol that they were measured with. Sources, all of them the code
that the projects publish:

- `ulip2`: github.com/salesforce/ULIP, `data/dataset_3d.py` (`ModelNet`, `Objaverse_Lvis_Colored`). Its 10k file of
  ModelNet40 is taken as it is; everything else is centered and scaled to radius 1. ModelNet40 is gray (0.4). Larger
  clouds are thinned by farthest point sampling, which the converted releases' extractors do. How ULIP-2 measured
  ScanObjectNN was not published: that row is ours, made like ModelNet40's.
- `openshape`: github.com/Colin97/OpenShape_code, `src/data.py`. Colors are those of the files (ModelNet40: 100/255,
  ScanObjectNN: 0.4). Its class embeddings are published in the place of its prompts, and were made from ULIP's
  templates. That y and z are exchanged belongs to the ViT-bigG-14 model alone ("B/32 and L/14 models has gravity axis
  Y; G/14 model has gravity axis Z", README of OpenShape/openshape-demo-support): see `conversion/releases.py`.
- `uni3d`: github.com/baaivision/Uni3D, `data/datasets.py` and `scripts/inference.sh`, which does not set
  `--openshape_setting`: as OpenShape, and ScanObjectNN's clouds are not filled up to the model's number of points.

All: cosine with class embeddings of the 64 templates `modelnet40_64`, top-k over shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor


@dataclass(frozen=True)
class Protocol:
    """A row of the table.

    Attributes:
        name: as commands call it.
        colors: by benchmark, "stored" for the file's colors (the extractor's gray where it has none) or "gray" for the
            extractor's gray everywhere.
        up_axis: what is up in the converted files.
        normalized: (benchmark, config) whose coordinates are final as they are stored.
        not_filled_up: benchmarks whose clouds stay as small as they are, where the model reads more points.
        unpublished: benchmarks whose row is ours.
        templates: of the class embeddings, see `load_templates`.
    """

    name: str
    colors: Mapping[str, Literal["stored", "gray"]]
    up_axis: str = "y"
    normalized: tuple[tuple[str, str], ...] = ()
    not_filled_up: tuple[str, ...] = ()
    unpublished: tuple[str, ...] = ()
    templates: str = "modelnet40_64"

    def keeps_color(self, benchmark: str) -> bool:
        """Whether the file's colors are shown to the model."""
        return self.colors[benchmark] == "stored"

    def feature_extractor(
        self, benchmark: str, config: str, own: Ulip2FeatureExtractor, points: int | None = None
    ) -> Ulip2FeatureExtractor:
        """What prepares the clouds of a benchmark's config for a model: its own extractor, told of the file.

        Args:
            own: the model's extractor.
            points: points of each cloud in the file, where that is known.
        """
        as_they_are = benchmark in self.not_filled_up and points is not None and points < own.num_points
        told = {
            "normalize": own.normalize and (benchmark, config) not in self.normalized,
            "up_axis": self.up_axis,
            "sampling": "none" if as_they_are else own.sampling,
            "seed": 0 if own.seed is None else own.seed,  # so that figures can be repeated
        }
        made: Any = Ulip2FeatureExtractor.from_dict(own.to_dict() | told)
        return made

    def describe(self, benchmark: str, made: Ulip2FeatureExtractor) -> dict[str, Any]:
        """How a benchmark was shown to a model, for the record of a result.

        Args:
            made: by `feature_extractor`.
        """
        return {
            "name": self.name,
            "normalize": made.normalize,
            "color": self.colors[benchmark],
            "gray": made.fill_color,
            "up_axis": made.up_axis,
            "axes": made.axes,
            "sampling": made.sampling,
            "seed": made.seed,
            "templates": self.templates,
            "published": benchmark not in self.unpublished,
        }


_STORED: dict[str, Literal["stored", "gray"]] = dict.fromkeys(
    ("modelnet40", "objaverse_lvis", "scanobjectnn"), "stored"
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "ulip2",
            _STORED | {"modelnet40": "gray", "scanobjectnn": "gray"},
            normalized=(("modelnet40", "colored_10k"),),
            unpublished=("scanobjectnn",),
        ),
        Protocol("openshape", _STORED),
        Protocol("uni3d", _STORED, not_filled_up=("scanobjectnn",)),
    )
}
# Encoders that come from another project than ULIP.
_BY_ENCODER = {"ulip2_ppat": "openshape", "ulip2_uni3d": "uni3d"}


def find_protocol(name: str | None, encoder: str) -> Protocol:
    """The protocol of that name, or of the project that an encoder comes from.

    Args:
        name: a key of `PROTOCOLS`, or None.
        encoder: `model_type` of the point encoder's configuration.
    """
    name = name or _BY_ENCODER.get(encoder, "ulip2")
    if name not in PROTOCOLS:
        raise ValueError(f"there is no protocol {name!r}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
