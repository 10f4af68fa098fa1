"""The preset table: complete, and the one that a model's project used by default."""

from __future__ import annotations

import pytest

from modeling_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.evaluation import load_templates
from modeling_ulip2.evaluation.benchmarks import BENCHMARKS
from modeling_ulip2.evaluation.protocols import PROTOCOLS, find_protocol


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=str)
def test_every_protocol_covers_every_benchmark(protocol):
    own = Ulip2FeatureExtractor(
        num_points=2048, in_channels=4 if protocol.axes == "xyz" else 6, up_axis="z", seed=None
    )
    for name, benchmark in BENCHMARKS.items():
        for config in benchmark.configs:
            made = protocol.feature_extractor(name, config, own)
            assert (made.num_points, made.in_channels) == (
                2048,
                own.in_channels,
            )  # what the model reads is the model's
            assert made.up_axis == "y" and made.seed == 0  # stored y up; figures can be repeated
            assert protocol.describe(name, config)["normalize"] == made.normalize
    assert len(load_templates(protocol.templates)) == 64


def test_the_published_rows():
    rows = {
        (name, benchmark, config): PROTOCOLS[name].describe(benchmark, config)
        for name in PROTOCOLS
        for benchmark, config in [
            ("modelnet40", "colored_10k"),
            ("modelnet40", "fps_8192"),
            ("objaverse_lvis", "lvis"),
        ]
    }
    told = {key: (row["normalize"], row["color"], row["axes"]) for key, row in rows.items()}
    assert told == {
        ("ulip2", "modelnet40", "colored_10k"): (False, "grey", "xyz"),
        ("ulip2", "modelnet40", "fps_8192"): (True, "grey", "xyz"),
        ("ulip2", "objaverse_lvis", "lvis"): (True, "stored", "xyz"),
        ("openshape", "modelnet40", "colored_10k"): (True, "stored", "xzy"),
        ("openshape", "modelnet40", "fps_8192"): (True, "stored", "xzy"),
        ("openshape", "objaverse_lvis", "lvis"): (True, "stored", "xzy"),
        ("uni3d", "modelnet40", "colored_10k"): (True, "stored", "xyz"),
        ("uni3d", "modelnet40", "fps_8192"): (True, "stored", "xyz"),
        ("uni3d", "objaverse_lvis", "lvis"): (True, "stored", "xyz"),
    }
    assert not PROTOCOLS["ulip2"].describe("scanobjectnn", "PB_T50_RS")["published"]  # ours, and said so


def test_the_default_is_the_encoders_own_project():
    assert find_protocol(None, "ulip2_pointbert").name == "ulip2"
    assert find_protocol(None, "ulip2_pointnext").name == "ulip2"
    assert find_protocol(None, "ulip2_uni3d").name == "uni3d"
    assert find_protocol(None, "ulip2_ppat").name == "openshape"
    assert find_protocol("ulip2", "ulip2_ppat").name == "ulip2"
