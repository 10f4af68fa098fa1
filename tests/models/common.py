"""One test for every model, in the manner of transformers' `ModelTesterMixin`.

A subclass says how its model and inputs are made (`make`, `inputs`) and which output stands for all others (`main`).
What cannot hold for a model stands in `skips`: the name of a test and the reason.
"""

from __future__ import annotations

import copy
import inspect
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

ATTENTIONS = ("eager", "sdpa")
# An implementation that compiles for half a minute has a marker.
SLOW_ATTENTIONS = ("flex_attention",)


class ModelTester:
    """The tests; to be subclassed as `Test...`."""

    main: ClassVar[str] = "pooled"
    skips: ClassVar[dict[str, str]] = {}
    has_attention: ClassVar[bool] = True
    slow_attentions: ClassVar[tuple[str, ...]] = SLOW_ATTENTIONS
    # Arguments without which a model makes what no graph can hold.
    export_options: ClassVar[dict[str, Any]] = {}
    # Names of parameters that no output depends on, which is to be explained.
    unread: ClassVar[str | None] = None

    # --- what a subclass gives ---------------------------------------------------------------------------------------

    def make(self) -> PreTrainedModel:
        """A tiny model with random weights."""
        raise NotImplementedError

    def inputs(self, batch: int = 3) -> dict[str, torch.Tensor]:
        """Arguments of `forward`; row i of every tensor belongs to sample i."""
        raise NotImplementedError

    def training_inputs(self) -> dict[str, torch.Tensor]:
        """Arguments with which a training step is taken."""
        return self.inputs(4)

    def loss(self, output: Any) -> torch.Tensor:
        """What a training step lowers."""
        if output.get("loss") is not None:
            return output.loss
        return sum((value.float().square().mean() for value in self.trained(output)), torch.zeros(()))

    def trained(self, output: Any) -> list[torch.Tensor]:
        """The outputs that together depend on every trained parameter."""
        return [output[self.main]]

    def main_of(self, output: Any) -> torch.Tensor:
        return output[self.main]

    def expected_states(self, model: Any) -> int:
        """How many `hidden_states` there are."""
        return model.config.num_hidden_layers + 1

    def states_of(self, output: Any, name: str) -> Any:
        """`hidden_states` or `attentions` of an output."""
        return output.get(name)

    # --- what the tests share ----------------------------------------------------------------------------------------

    @pytest.fixture(autouse=True)
    def _skip(self, request: pytest.FixtureRequest) -> None:
        reason = self.skips.get(request.node.originalname)
        if reason is not None:
            pytest.skip(reason)

    @pytest.fixture
    def model(self) -> Any:
        """In evaluation mode, with statistics that a BatchNorm can be wrong about."""
        torch.manual_seed(0)
        model = self.make().eval()
        generator = torch.Generator().manual_seed(1)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5, generator=generator)
        return model

    def run(self, model: Any, batch: int = 3, **options: Any) -> torch.Tensor:
        with torch.no_grad():
            return self.main_of(model(**self.inputs(batch), **options))

    @staticmethod
    def load(model: Any, folder: Path, **options: Any) -> Any:
        loaded, report = type(model).from_pretrained(folder, output_loading_info=True, **options)
        for keys in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not report[keys], (keys, report[keys])
        return loaded

    def assert_same(self, model: Any, other: Any) -> None:
        """Bit by bit: parameters, buffers (also those that no checkpoint holds), and outputs."""
        assert not other.training
        assert list(model.state_dict()) == list(other.state_dict())
        for tensors in (
            zip(model.named_parameters(), other.named_parameters(), strict=True),
            zip(model.named_buffers(), other.named_buffers(), strict=True),
        ):
            for (name, ours), (_, theirs) in tensors:
                assert torch.equal(ours, theirs), name
        assert torch.equal(self.run(model), self.run(other))

    # --- files -------------------------------------------------------------------------------------------------------

    def test_save_and_load(self, model: Any, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        assert (tmp_path / "model.safetensors").is_file() and not list(tmp_path.glob("*.bin"))
        self.assert_same(model, self.load(model, tmp_path))

    def test_sharded(self, model: Any, tmp_path: Path) -> None:
        size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        model.save_pretrained(tmp_path, max_shard_size=size // 2)
        assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
        assert (tmp_path / "model.safetensors.index.json").is_file()
        self.assert_same(model, self.load(model, tmp_path))

    def test_configuration_round_trip(self, model: Any, tmp_path: Path) -> None:
        config = model.config
        config.save_pretrained(tmp_path)
        loaded = type(config).from_pretrained(tmp_path)
        assert loaded.to_diff_dict() == config.to_diff_dict()
        assert type(config).from_dict(config.to_dict()).to_diff_dict() == config.to_diff_dict()
        assert copy.deepcopy(config).to_dict() == config.to_dict()
        torch.manual_seed(0)
        again = type(model)(loaded)
        assert {name: value.shape for name, value in again.state_dict().items()} == {
            name: value.shape for name, value in model.state_dict().items()
        }

    def test_missing_weights_are_initialized(self, model: Any, tmp_path: Path) -> None:
        """Loading builds the model on the meta device: what a checkpoint lacks must not hold garbage."""
        kept = next(name for name, value in model.state_dict().items() if value.ndim > 1)
        model.save_pretrained(tmp_path, state_dict={kept: model.state_dict()[kept]})
        loaded = type(model).from_pretrained(tmp_path)
        torch.manual_seed(0)
        fresh = type(model)(model.config).state_dict()
        for name, value in loaded.state_dict().items():
            assert value.isfinite().all(), name
            if name == kept:
                assert torch.equal(value, model.state_dict()[kept])
            elif value.ndim == 0 or (value.numel() > 1 and (fresh[name] == fresh[name].flatten()[0]).all()):
                assert torch.equal(value, fresh[name]), name  # norms, statistics, counters, scales
            else:
                assert 0 < value.abs().max() <= 6 * fresh[name].abs().max(), name

    # --- devices and precision ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}], ids=str)
    def test_device_map(self, model: Any, tmp_path: Path, device_map: Any) -> None:
        model.save_pretrained(tmp_path)
        loaded = self.load(model, tmp_path, device_map=device_map)
        assert {tensor.device.type for tensor in (*loaded.parameters(), *loaded.buffers())} == {"cpu"}
        self.assert_same(model, loaded)

    def test_disk_offload(self, model: Any, tmp_path: Path) -> None:
        """Weights that stay on the disk until their module runs give the same numbers."""
        expected = self.run(model)
        model.save_pretrained(tmp_path / "model")
        loaded = type(model).from_pretrained(
            tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "offloaded"
        )
        assert {parameter.device.type for parameter in loaded.parameters()} == {"meta"}
        torch.testing.assert_close(self.run(loaded), expected, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_half_precision(self, model: Any, tmp_path: Path, dtype: torch.dtype) -> None:
        model.save_pretrained(tmp_path)
        loaded = self.load(model, tmp_path, dtype=dtype)
        floats = {parameter.dtype for parameter in loaded.parameters() if parameter.is_floating_point()}
        assert floats == {dtype} and loaded.dtype == dtype
        found, exact = self.run(loaded).float(), self.run(model)
        assert found.isfinite().all()
        assert nn.functional.cosine_similarity(found.flatten(1), exact.flatten(1)).min() > 0.98
        cast = self.run(copy.deepcopy(model).to(dtype)).float()
        assert nn.functional.cosine_similarity(cast.flatten(1), exact.flatten(1)).min() > 0.98

    # --- training ----------------------------------------------------------------------------------------------------

    def test_training_step_moves_what_is_trained(self, model: Any) -> None:
        model.train()
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        torch.manual_seed(0)
        self.loss(model(**self.training_inputs())).backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        still = {name: p for name, p in model.named_parameters() if torch.equal(p, before[name])}
        for name in trained & set(still):
            if self.unread is None or not re.search(self.unread, name):
                # a bias in front of a BatchNorm has no gradient but that of rounding
                gradient = still[name].grad
                assert gradient is not None and name.endswith("bias") and gradient.abs().max() < 1e-6, name
        assert {name for name, p in model.named_parameters() if not p.requires_grad} <= set(still)
        assert all(parameter.isfinite().all() for parameter in model.parameters())

    def test_gradient_checkpointing(self, model: Any) -> None:
        if not model.supports_gradient_checkpointing:
            with pytest.raises(ValueError, match="activation checkpointing"):
                model.gradient_checkpointing_enable()
            pytest.skip("it has no blocks to compute again")
        checkpointed = copy.deepcopy(model)
        checkpointed.gradient_checkpointing_enable()
        assert checkpointed.is_gradient_checkpointing
        for one in (model, checkpointed):
            one.train()
            torch.manual_seed(3)
            self.loss(one(**self.training_inputs())).backward()
        for (name, ours), theirs in zip(model.named_parameters(), checkpointed.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, msg=name)

    # --- outputs -----------------------------------------------------------------------------------------------------

    def test_evaluation_is_deterministic(self, model: Any) -> None:
        assert torch.equal(self.run(model), self.run(model))

    def test_batch_equals_single(self, model: Any) -> None:
        together = self.run(model)
        inputs = self.inputs()
        for row in range(len(together)):
            with torch.no_grad():
                alone = self.main_of(model(**{name: value[row : row + 1] for name, value in inputs.items()}))
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-4)

    def test_a_tuple_holds_what_the_output_does(self, model: Any) -> None:
        with torch.no_grad():
            output, found = model(**self.inputs()), model(**self.inputs(), return_dict=False)
        assert isinstance(output, ModelOutput) and type(found) is tuple
        assert_equal(found, output.to_tuple())
        model.config.return_dict = False
        with torch.no_grad():
            assert_equal(model(**self.inputs()), found)
            assert isinstance(model(**self.inputs(), return_dict=True), ModelOutput)

    def test_hidden_states(self, model: Any) -> None:
        with torch.no_grad():
            plain, output = model(**self.inputs()), model(**self.inputs(), output_hidden_states=True)
        assert self.states_of(plain, "hidden_states") is None
        states = self.states_of(output, "hidden_states")
        assert len(states) == self.expected_states(model)
        assert all(state.ndim >= 3 and len(state) == 3 and state.isfinite().all() for state in states)
        assert torch.equal(self.main_of(plain), self.main_of(output))
        model.config.output_hidden_states = True
        with torch.no_grad():
            assert_equal(self.states_of(model(**self.inputs()), "hidden_states"), states)
            silent = model(**self.inputs(), output_hidden_states=False)
        assert self.states_of(silent, "hidden_states") is None

    def test_attentions(self, model: Any) -> None:
        if not self.has_attention:
            with pytest.raises(ValueError, match="has no attention"):
                model(**self.inputs(), output_attentions=True)
            pytest.skip("it has no attention")
        model.set_attn_implementation("eager")
        with torch.no_grad():
            output = model(**self.inputs(), output_attentions=True)
        attentions = self.states_of(output, "attentions")
        assert len(attentions) == self.expected_states(model) - 1
        for weights in attentions:  # (B, heads, T, T)
            assert weights.ndim == 4 and weights.shape[0] == 3 and weights.shape[2] == weights.shape[3]
            torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
        model.set_attn_implementation("sdpa")
        with pytest.raises(ValueError, match="eager"):
            model(**self.inputs(), output_attentions=True)

    @pytest.mark.parametrize(
        "implementation", [*ATTENTIONS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_ATTENTIONS)]
    )
    def test_attention_implementations(self, model: Any, tmp_path: Path, implementation: str) -> None:
        if implementation in set(SLOW_ATTENTIONS) - set(self.slow_attentions):
            pytest.skip("it is refused, as another test sees")
        expected = self.run(model)
        model.save_pretrained(tmp_path)
        loaded = self.load(model, tmp_path, attn_implementation=implementation)
        assert loaded.config._attn_implementation == implementation
        torch.testing.assert_close(self.run(loaded), expected, atol=1e-5, rtol=1e-4)
        model.set_attn_implementation(implementation)
        torch.testing.assert_close(self.run(model), expected, atol=1e-5, rtol=1e-4)

    def test_export(self, model: Any) -> None:
        expected, inputs = self.run(model), self.inputs() | self.export_options
        with torch.no_grad():
            program = torch.export.export(model, args=(), kwargs=inputs, strict=False)
            found = program.module()(**inputs)
        assert isinstance(found, ModelOutput)
        torch.testing.assert_close(self.main_of(found), expected, atol=1e-5, rtol=1e-4)

    # --- the rest ----------------------------------------------------------------------------------------------------

    def test_forward_names_its_main_input_first(self, model: Any) -> None:
        parameters = list(inspect.signature(model.forward).parameters)
        assert parameters[0] == model.main_input_name

    def test_options_that_it_does_not_know_are_refused(self, model: Any) -> None:
        with pytest.raises(TypeError, match="output_hidden_state"):
            model(**self.inputs(), output_hidden_state=True)

    def test_a_copy_is_the_same(self, model: Any) -> None:
        self.assert_same(model, copy.deepcopy(model))

    def test_there_are_no_embeddings_to_resize(self, model: Any) -> None:
        with pytest.raises((NotImplementedError, AttributeError)):
            model.resize_token_embeddings(7)


def assert_equal(found: Any, expected: Any) -> None:
    """Tensors, tuples of them, and so on."""
    if isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    elif isinstance(expected, (tuple, list)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert found == expected or type(found) is type(expected)
