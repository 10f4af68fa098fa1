"""One process or two, in one part or several: the same loss, the same gradients, the same BatchNorm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from modeling_ulip2 import Ulip2Config, Ulip2Model
from modeling_ulip2.data.collator import TripletCollator
from modeling_ulip2.data.reading import TripletDataset, read_triplets
from modeling_ulip2.training import Ulip2Trainer, Ulip2TrainingArguments
from modeling_ulip2.training.features import published_features
from modeling_ulip2.training.grad_cache import average_gradients, grad_cache_step, split_inputs
from modeling_ulip2.training.sync_batch_norm import synchronize_batch_norm
from tests.models.tiny import ENCODERS
from tests.training.world import DIM, ENCODER, tiny_model, tiny_processor

LOSSES: dict[str, dict[str, Any]] = {
    "clip": {},
    "chunked": {"loss_chunk_size": 5},
    "siglip": {"loss_type": "siglip", "text_loss_weight": 0.3, "logit_scale_init_value": 2.3},
}
CLOUDS = 32


def make_model(loss: str = "clip") -> Ulip2Model:
    torch.manual_seed(0)
    return Ulip2Model(Ulip2Config(point_config=ENCODER, projection_dim=DIM, **LOSSES[loss])).train()


def inputs(clouds: int = CLOUDS) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    texts = torch.randn(clouds, 2, DIM, generator=generator)
    return {
        "point_values": torch.randn(clouds, 64, 6, generator=generator),
        "text_embeds": texts,
        "text_mask": torch.rand(clouds, 2, generator=generator) < 0.9,
        "image_embeds": torch.randn(clouds, DIM, generator=generator),
        "return_loss": True,
    }


def results(model: Ulip2Model, terms: Any) -> dict[str, torch.Tensor]:
    own = {name: getattr(terms, name).detach() for name in ("loss", "text_loss", "image_loss", "text_accuracy")}
    own |= {f"grad of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return own | dict(model.named_buffers())


def in_one_pass(model: Ulip2Model, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    outputs = model(**batch)
    outputs.loss.backward()
    return results(model, outputs)


def in_parts(model: Ulip2Model, batch: dict[str, Any], size: int, **options: Any) -> dict[str, torch.Tensor]:
    terms = grad_cache_step(model, model.compare, split_inputs(batch, size), **options)
    average_gradients(model.parameters())
    return results(model, terms)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], but: tuple[str, ...] = ()) -> None:
    assert found.keys() == expected.keys() and any("grad" in name for name in found)
    for name, value in expected.items():
        if not name.startswith(but or "-"):
            torch.testing.assert_close(found[name], value, atol=2e-5, rtol=2e-3, msg=lambda m: f"{name}: {m}")  # noqa: B023


@pytest.mark.parametrize("loss", LOSSES)
def test_parts_of_a_batch_give_its_loss_and_gradients(loss):
    """With 12, the last part is smaller."""
    expected = in_one_pass(make_model(loss), inputs())
    for size in (8, 12, 32):
        assert_same(in_parts(make_model(loss), inputs(), size), expected)


@pytest.mark.parametrize("encoder", [name for name in ENCODERS if name not in ("ulip2_pointbert", "ulip2_pointmlp")])
def test_every_encoder(encoder, monkeypatch):
    """Dozens of BatchNorm layers, or none; sampling starts at point 0 instead of at a random one."""
    zeros = lambda *given, **_: torch.zeros(next(own for own in given if isinstance(own, tuple)), dtype=torch.long)  # noqa: E731
    monkeypatch.setattr(torch, "randint", zeros)

    def make() -> Ulip2Model:
        torch.manual_seed(0)
        config = ENCODERS[encoder] | {"model_type": encoder, "patch_dropout": 0, "drop_path_rate": 0.0}
        model = Ulip2Model(Ulip2Config(point_config=config, projection_dim=DIM)).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return model.double()  # in float32, a rounding error may choose another maximum, here and there

    channels = make().config.point_config.in_channels
    batch = inputs(12)
    batch["point_values"] = torch.nn.functional.pad(batch["point_values"], (0, channels - 6)).double()
    found, expected = in_parts(make(), batch, 5), in_one_pass(make(), batch)
    assert found.keys() == expected.keys()
    gradients = torch.stack([value.norm() for name, value in expected.items() if name.startswith("grad")])
    for name, value in expected.items():
        difference = (found[name] - value).double().norm()
        assert difference <= 1e-5 * value.double().norm() + 1e-6 * gradients.norm(), (name, difference)


def test_activations_that_are_computed_again_change_nothing():
    """The patch encoder calls its BatchNorm layers once more in each backward pass."""
    model = make_model()
    model.gradient_checkpointing_enable()
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert_same(in_parts(model, inputs(), 8), in_one_pass(make_model(), inputs()))


def test_what_is_random_is_drawn_alike_in_both_passes():
    """Stochastic depth: the gradient is that of a pass in which each part draws from its own seed."""
    model, batch = tiny_model(drop_path_rate=0.5).train(), inputs()
    torch.manual_seed(5)
    found = in_parts(model, batch, 8, batch_norm="part")
    after = torch.rand(3)
    torch.manual_seed(5)
    seeds = torch.randint(2**62, (4,)).tolist()
    torch.testing.assert_close(torch.rand(3), after, rtol=0, atol=0)  # a step costs its seeds, whatever is drawn

    twin = tiny_model(drop_path_rate=0.5).train()
    embeds = []
    for seed, part in zip(seeds, split_inputs(batch, 8), strict=True):
        torch.manual_seed(seed)
        embeds.append(twin(point_values=part["point_values"]).point_embeds)
    others = twin(**{name: batch[name] for name in ("text_embeds", "text_mask", "image_embeds")})
    terms = twin.compare(torch.cat(embeds), others.text_embeds, others.image_embeds)
    terms.loss.backward()
    assert_same(found, results(twin, terms))


def test_statistics_of_parts_are_updated_once():
    """In 'part', BatchNorm sees each part as a batch, as a run of small batches would."""
    model, twin, batch = make_model(), make_model(), inputs()
    in_parts(model, batch, 8, batch_norm="part")
    for part in split_inputs(batch, 8):
        twin(point_values=part["point_values"])
    for (name, value), expected in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(value, expected, msg=lambda m: f"{name}: {m}")  # noqa: B023
    with pytest.raises(ValueError, match="batch_norm must be one of step, part"):
        in_parts(model, batch, 8, batch_norm="frozen")


def process(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    own = {name: value[16 * rank :][:16] if name != "return_loss" else value for name, value in inputs().items()}
    found = {}
    for loss in LOSSES:
        found[loss, "2 x 16"] = in_one_pass(synchronize_batch_norm(make_model(loss)), own)
        found[loss, "2 x 2 x 8"] = in_parts(synchronize_batch_norm(make_model(loss)), own, 8)
    for result in (found[loss, "2 x 16"] for loss in LOSSES):
        gradients = [torch.nn.Parameter(value) for name, value in result.items() if name.startswith("grad")]
        for gradient in gradients:
            gradient.grad = gradient.data
        average_gradients(iter(gradients))
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_in_parts_or_not_equal_one(tmp_path):
    """1 x 32, 2 x 16 and 2 x 2 x 8; a process tells the loss of its own rows."""
    mp.start_processes(process, (tmp_path,), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for loss, way in first:
        expected = in_one_pass(make_model(loss), inputs())
        one, two = first[loss, way], second[loss, way]
        means = {name: (value + two[name]) / 2 if "grad" not in name else value for name, value in one.items()}
        means |= {name: value for name, value in one.items() if name in dict(make_model().named_buffers())}
        assert_same(means, expected)


def curve(folder: Path, dataset: TripletDataset, **settings: Any) -> tuple[list[float], Ulip2Trainer]:
    args = {"num_train_epochs": 3, "learning_rate": 1e-3, "warmup_epochs": 0.5, "logging_steps": 1}
    args |= {"save_strategy": "no", "use_cpu": True, "disable_tqdm": True}
    processor = tiny_processor()
    trainer = Ulip2Trainer(
        model=tiny_model(),
        args=Ulip2TrainingArguments(str(folder), **(args | settings)),
        data_collator=TripletCollator(processor, top_k=2, seed=3),
        train_dataset=dataset,
        processing_class=processor,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], trainer


def test_accumulation_keeps_the_batch_of_a_training_whole(dataset_with_features, tower, tmp_path):
    triplets = read_triplets(str(dataset_with_features))
    dataset = TripletDataset(triplets, published_features(str(dataset_with_features), tower))
    expected, trainer = curve(tmp_path, dataset, per_device_train_batch_size=8)
    logged = trainer.state.log_history[0]
    assert logged["loss"] == pytest.approx(logged["text_loss"] + logged["image_loss"], abs=1e-3)
    assert 0 <= logged["text_accuracy"] <= 1 and logged["samples_per_second"] > 0 and logged["grad_norm"] > 0
    assert logged["logit_scale"] == pytest.approx(14.3, abs=0.1)
    for settings in (
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 8, "grad_cache_chunk_size": 3},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "grad_cache_chunk_size": 2},
    ):
        losses, trainer = curve(tmp_path, dataset, **settings)
        assert len(losses) == 6 and losses == pytest.approx(expected, abs=2e-3), settings
        entry = trainer.state.log_history[0]
        for name in ("text_loss", "image_loss", "image_accuracy", "grad_norm"):
            assert entry[name] == pytest.approx(logged[name], abs=2e-3), name
    apart, _ = curve(tmp_path, dataset, per_device_train_batch_size=2, gradient_accumulation_steps=4, grad_cache=False)
    assert apart[0] < expected[0] - 0.5, "fewer negatives, another loss"


def test_what_does_not_go_together_is_refused(tmp_path):
    settings = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "use_cpu": True}
    with pytest.raises(ValueError, match="torch_compile.*grad_cache_batch_norm=part"):
        Ulip2Trainer(tiny_model(), Ulip2TrainingArguments(str(tmp_path), torch_compile=True, **settings))
    with pytest.raises(ValueError, match="grad_cache_chunk_size is a setting of grad_cache"):
        Ulip2TrainingArguments(str(tmp_path), grad_cache=False, grad_cache_chunk_size=2, **settings)
    with pytest.raises(ValueError, match="grad_cache_chunk_size must be at least 1"):
        Ulip2TrainingArguments(str(tmp_path), grad_cache_chunk_size=0, **settings)
