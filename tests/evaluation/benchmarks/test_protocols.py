"""The preset table: complete, and the one that a model's project used by default."""

from __future__ import annotations

import numpy as np
import pytest

from modeling_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.conversion.releases import RELEASES
from modeling_ulip2.data.benchmarks import BENCHMARKS
from modeling_ulip2.evaluation import load_templates
from modeling_ulip2.evaluation.benchmarks.protocols import PROTOCOLS, find_protocol

OWN = {
    "as released": {},
    "trained here": {"num_points": 1024, "sampling": "fps", "fill_color": 0.5},
    "y and z exchanged": {"axes": "xzy", "sampling": "none"},
    "z up, drawn anew": {"up_axis": "z", "seed": None, "in_channels": 4},
    "not normalized": {"normalize": False, "in_channels": 3, "seed": 7},
}


@pytest.mark.parametrize("own", OWN.values(), ids=list(OWN))
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
def test_the_models_extractor_decides_all_that_the_file_does_not(protocol, own):
    own = Ulip2FeatureExtractor(**own)
    for name, benchmark in BENCHMARKS.items():
        for config in benchmark.configs:
            made = protocol.feature_extractor(name, config, own, points=10000)
            kept = ("num_points", "in_channels", "fill_color", "sampling", "axes")
            assert [getattr(made, field) for field in kept] == [getattr(own, field) for field in kept]
            as_stored = (protocol.name, name, config) == ("ulip2", "modelnet40", "colored_10k")
            assert made.normalize == (own.normalize and not as_stored)
            assert made.up_axis == "y" and made.seed == (own.seed or 0)  # stored y up; figures can be repeated
            described = protocol.describe(name, made)
            assert {field: described[field] for field in ("normalize", "axes", "sampling", "up_axis")} == {
                field: getattr(made, field) for field in ("normalize", "axes", "sampling", "up_axis")
            }
    assert len(load_templates(protocol.templates)) == 64


def test_the_published_rows():
    own = Ulip2FeatureExtractor()
    told = {
        (name, benchmark, config): (
            PROTOCOLS[name].feature_extractor(benchmark, config, own).normalize,
            PROTOCOLS[name].colors[benchmark],
        )
        for name in PROTOCOLS
        for benchmark, config in [
            ("modelnet40", "colored_10k"),
            ("modelnet40", "fps_8192"),
            ("objaverse_lvis", "lvis"),
        ]
    }
    assert told == {
        ("ulip2", "modelnet40", "colored_10k"): (False, "gray"),
        ("ulip2", "modelnet40", "fps_8192"): (True, "gray"),
        ("ulip2", "objaverse_lvis", "lvis"): (True, "stored"),
        ("openshape", "modelnet40", "colored_10k"): (True, "stored"),
        ("openshape", "modelnet40", "fps_8192"): (True, "stored"),
        ("openshape", "objaverse_lvis", "lvis"): (True, "stored"),
        ("uni3d", "modelnet40", "colored_10k"): (True, "stored"),
        ("uni3d", "modelnet40", "fps_8192"): (True, "stored"),
        ("uni3d", "objaverse_lvis", "lvis"): (True, "stored"),
    }
    assert not PROTOCOLS["ulip2"].describe("scanobjectnn", own)["published"]  # ours, and said so


def test_uni3d_does_not_fill_scanobjectnn_up():
    uni3d = PROTOCOLS["uni3d"]
    for points, num_points, sampling in [(2048, 10000, "none"), (2048, 1024, "random"), (None, 10000, "random")]:
        own = Ulip2FeatureExtractor(num_points=num_points)
        assert uni3d.feature_extractor("scanobjectnn", "OBJ_BG", own, points).sampling == sampling
        assert uni3d.feature_extractor("modelnet40", "fps_8192", own, points).sampling == "random"


AXES = {"ViT-bigG-14": "xzy", "ViT-L/14": "xyz", "ViT-B/32": "xyz"}


@pytest.mark.parametrize("tower", AXES)
def test_openshapes_releases_are_tested_with_the_axes_of_their_extractors(tower):
    """What `convert_to_folder` would write, then measured by OpenShape's protocol."""
    (release,) = [release for release in RELEASES if release.title.endswith(tower)]
    assert release.model_type == "ulip2_ppat" and release.axes == AXES[tower]
    own = Ulip2FeatureExtractor(num_points=4, axes=release.axes, sampling=release.sampling)
    extractor = find_protocol(None, release.model_type).feature_extractor("modelnet40", "colored_10k", own, 4)
    xyz = np.array([[0, 2, 0], [0, -2, 0], [1, 0, 0], [-1, 0, 0.0]])  # a pole that stands y up
    values = extractor(xyz, return_tensors="np")["point_values"][0]
    assert values[:2, "xyz".index("y" if release.axes == "xyz" else "z")].tolist() == [1, -1]


def test_the_default_is_the_encoders_own_project():
    assert find_protocol(None, "ulip2_pointbert").name == "ulip2"
    assert find_protocol(None, "ulip2_pointnext").name == "ulip2"
    assert find_protocol(None, "ulip2_uni3d").name == "uni3d"
    assert find_protocol(None, "ulip2_ppat").name == "openshape"
    assert find_protocol("ulip2", "ulip2_ppat").name == "ulip2"
