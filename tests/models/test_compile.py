"""Every encoder is one graph for torch.compile and torch.export, for any number of clouds and points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modeling_ulip2 import Ulip2Config, Ulip2PointModelWithProjection
from modeling_ulip2.models.modeling_pointbert import PointBertPatchEncoder
from tests.models import tiny

SIZES = [(2, 70), (3, 80), (5, 133), (2, 96), (4, 70), (1, 70), (1, 81)]


def make_model(model_type: str) -> Any:
    torch.manual_seed(0)
    point_config = {"model_type": model_type, **tiny.ENCODERS[model_type]}
    return Ulip2PointModelWithProjection(Ulip2Config(point_config=point_config, projection_dim=16)).eval()


def clouds(model: Any, batch: int, points: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(points)
    return torch.rand(batch, points, model.config.point_config.in_channels, generator=generator) - 0.5


def counting(graphs: list[torch.fx.GraphModule]) -> Callable[..., Any]:
    """A backend that runs graphs as they are and counts them."""

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    return backend


@pytest.mark.parametrize("model_type", list(tiny.ENCODERS))
def test_compiles_once_for_all_sizes(model_type: str) -> None:
    graphs: list[torch.fx.GraphModule] = []
    torch._dynamo.reset()
    model = make_model(model_type)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counting(graphs))
    with torch.no_grad():
        for size in SIZES:
            values = clouds(model, *size)
            torch.testing.assert_close(compiled(values).point_embeds, model(values).point_embeds)
    assert len(graphs) <= 2  # torch makes a graph of its own for batches of one
    nodes = [str(node.target) for node in graphs[0].graph.nodes if node.op == "call_function"]
    assert any("ulip2" in name and "farthest_point_sample" in name for name in nodes), nodes


@pytest.mark.parametrize("model_type", list(tiny.ENCODERS))
def test_trains_as_one_graph_of_all_sizes(model_type: str) -> None:
    graphs: list[torch.fx.GraphModule] = []
    torch._dynamo.reset()
    model = make_model(model_type).train()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counting(graphs))
    for size in SIZES:
        if size[0] == 1:  # which BatchNorm cannot train with
            continue
        values = clouds(model, *size)
        torch.manual_seed(1)  # of the samplings' starts, and of what is dropped
        found = compiled(values).point_embeds
        torch.manual_seed(1)
        torch.testing.assert_close(found, model(values).point_embeds)
        found.sum().backward()
    assert len(graphs) == 1
    assert all(parameter.grad is not None for parameter in model.point_projection.parameters())


@pytest.mark.parametrize("model_type", list(tiny.ENCODERS))
def test_exports_with_any_number_of_clouds_and_points(model_type: str) -> None:
    model = make_model(model_type)
    any_size = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    program = torch.export.export(model, (clouds(model, *SIZES[0]),), dynamic_shapes={"point_values": any_size})
    with torch.no_grad():
        for size in SIZES:
            values = clouds(model, *size)
            torch.testing.assert_close(program.module()(values).point_embeds, model(values).point_embeds)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", list(tiny.ENCODERS))
def test_inductor_gives_the_same(model_type: str) -> None:
    torch._dynamo.reset()
    model = make_model(model_type)
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    for size in SIZES[:3]:
        values = clouds(model, *size)
        with torch.no_grad():
            torch.testing.assert_close(compiled(values).point_embeds, model(values).point_embeds, rtol=1e-4, atol=1e-5)
    compiled(values).point_embeds.sum().backward()
    found = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    model.zero_grad()
    model(values).point_embeds.sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_patches_encoded_again_give_the_same_gradients_and_statistics() -> None:
    torch.manual_seed(0)
    patches = torch.randn(2, 5, 7, 6)
    kept, again = PointBertPatchEncoder(6, 16).train(), PointBertPatchEncoder(6, 16).train()
    again.load_state_dict(kept.state_dict())
    again.gradient_checkpointing = True
    saved: dict[str, int] = {}
    for name, encoder in {"kept": kept, "again": again}.items():
        saved[name] = 0

        def count(tensor: torch.Tensor, name: str = name) -> torch.Tensor:
            saved[name] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            tokens = encoder(patches)
        tokens.square().sum().backward()
    for (name, expected), found in zip(kept.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=name)
    for (name, before), after in zip(kept.named_buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(after, before, msg=name)
    assert again.first_conv[1].num_batches_tracked == 1
    assert saved["again"] < 0.7 * saved["kept"]


def test_gradient_checkpointing_reaches_the_patch_encoder() -> None:
    model = make_model("ulip2_pointbert")
    model.gradient_checkpointing_enable()
    assert model.point_model.encoder.gradient_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.point_model.encoder.gradient_checkpointing


def test_patches_in_parts_give_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, patches = PointBertPatchEncoder(6, 16).eval(), torch.randn(3, 5, 7, 6)
    with torch.no_grad():
        whole = encoder(patches)
        monkeypatch.setattr("modeling_ulip2.models.modeling_pointbert._PATCHES_IN_CACHE", 4)
        torch.testing.assert_close(encoder(patches), whole)
