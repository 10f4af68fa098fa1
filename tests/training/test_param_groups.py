from __future__ import annotations

import json

import pytest

from modeling_ulip2.conversion import LAYOUTS, published_name
from modeling_ulip2.training.param_groups import decay_parameter_names, has_weight_decay
from tests.conftest import DEFAULT_VECTORS
from tests.training.world import tiny_model

ULIP = next(layout for layout in LAYOUTS if layout.name == "ULIP")
GROUPS = json.loads((DEFAULT_VECTORS / "ulip2_wrapper" / "tiny" / "param_groups.json").read_text())


@pytest.mark.parametrize(
    ("name", "num_dims", "expected"),
    [("proj.weight", 2, True), ("proj.bias", 2, False), ("ln_pre.weight", 2, False), ("bn.weight", 3, False),
     ("norm.weight", 1, False), ("logit_scale", 0, False), ("cls_token", 3, True)],
)  # fmt: skip
def test_rule(name, num_dims, expected):
    assert has_weight_decay(name, num_dims) is expected


def test_a_model_falls_into_the_published_groups():
    """Every parameter of a Point-BERT of two blocks is in the same group as its published namesake."""
    model = tiny_model(num_hidden_layers=2)
    decayed = {published_name(name, ULIP) for name in decay_parameter_names(model)}
    others = {published_name(name, ULIP) for name, _ in model.named_parameters()} - decayed
    published = {group: {n for n in names if not n.startswith("open_clip_model.")} for group, names in GROUPS.items()}
    assert decayed == published["weight_decay"]
    assert others == published["no_weight_decay"]
