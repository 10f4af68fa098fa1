"""How each project prepares a benchmark's clouds for its zero-shot figures: the one table of these presets.

Published figures are comparable only under the protocol that they were measured with. Sources, all of them the code
that the projects publish:

- `ulip2`: github.com/salesforce/ULIP, `data/dataset_3d.py` (`ModelNet`, `Objaverse_Lvis_Colored`). Its 10k file of
  ModelNet40 is taken as it is; everything else is centred and scaled to radius 1. ModelNet40 is grey (0.4). Larger
  clouds are thinned by farthest point sampling. How ULIP-2 measured ScanObjectNN was not published: that row is ours,
  made like ModelNet40's.
- `openshape`: github.com/Colin97/OpenShape_code, `src/data.py`. Axes y and z are exchanged, colours are those of the
  files (ModelNet40: 100/255, ScanObjectNN: 0.4), points are drawn at random. Its class embeddings are published in the
  place of its prompts, and were made from ULIP's templates.
- `uni3d`: github.com/baaivision/Uni3D, `data/datasets.py` and `scripts/inference.sh`, which does not set
  `--openshape_setting`: as OpenShape, without the exchange of axes, with all points that a file holds.

All: cosine with class embeddings of the 64 templates `modelnet40_64`, top-k over shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from modeling_ulip2.feature_extraction_ulip2 import FILL_COLOR, Ulip2FeatureExtractor


@dataclass(frozen=True)
class Protocol:
    """A row of the table.

    Attributes:
        name: as commands call it.
        colors: by benchmark, "stored" for the file's colours (grey where it has none) or "grey" for 0.4 everywhere.
        axes: order of the coordinates, see `Ulip2FeatureExtractor`.
        sampling: how a larger cloud is brought to the model's number of points; "none": all points of the file.
        as_stored: (benchmark, config) whose coordinates are neither centred nor scaled.
        unpublished: benchmarks whose row is ours.
        templates: of the class embeddings, see `load_templates`.
    """

    name: str
    colors: Mapping[str, Literal["stored", "grey"]]
    axes: Literal["xyz", "xzy"] = "xyz"
    sampling: Literal["fps", "random", "none"] = "random"
    as_stored: tuple[tuple[str, str], ...] = ()
    unpublished: tuple[str, ...] = ()
    templates: str = "modelnet40_64"

    def keeps_color(self, benchmark: str) -> bool:
        """Whether the file's colours are shown to the model."""
        return self.colors[benchmark] == "stored"

    def feature_extractor(self, benchmark: str, config: str, own: Ulip2FeatureExtractor) -> Ulip2FeatureExtractor:
        """What prepares the clouds of a benchmark's config for a model.

        Args:
            own: the model's extractor, which says how many points and which channels it reads.
        """
        return Ulip2FeatureExtractor(
            num_points=own.num_points,
            in_channels=own.in_channels,
            normalize=(benchmark, config) not in self.as_stored,
            fill_color=FILL_COLOR,
            sampling=self.sampling,
            up_axis="y",
            axes=self.axes,
            seed=0,
        )

    def describe(self, benchmark: str, config: str) -> dict[str, Any]:
        """The row for one benchmark, for the record of a result."""
        return {
            "name": self.name,
            "normalize": (benchmark, config) not in self.as_stored,
            "color": self.colors[benchmark],
            "grey": FILL_COLOR,
            "axes": self.axes,
            "sampling": self.sampling,
            "templates": self.templates,
            "published": benchmark not in self.unpublished,
        }


_STORED: dict[str, Literal["stored", "grey"]] = dict.fromkeys(
    ("modelnet40", "objaverse_lvis", "scanobjectnn"), "stored"
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "ulip2",
            _STORED | {"modelnet40": "grey", "scanobjectnn": "grey"},
            sampling="fps",
            as_stored=(("modelnet40", "colored_10k"),),
            unpublished=("scanobjectnn",),
        ),
        Protocol("openshape", _STORED, axes="xzy"),
        Protocol("uni3d", _STORED, sampling="none"),
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
