from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import IntervalStrategy, TrainerCallback
from transformers.modeling_outputs import BaseModelOutputWithPooling

from modeling_ulip2 import Ulip2Model
from modeling_ulip2.data.collator import TripletCollator
from modeling_ulip2.data.reading import TripletDataset, read_triplets
from modeling_ulip2.data.stream import TripletStream
from modeling_ulip2.evaluation import held_out
from modeling_ulip2.evaluation.held_out import HeldOutCallback, HeldOutEvaluation
from modeling_ulip2.models.loss import contrastive_loss
from modeling_ulip2.training import Ulip2Trainer, Ulip2TrainingArguments
from modeling_ulip2.training.arguments import automatic_workers
from modeling_ulip2.training.callbacks import LossGuard, NothingLearnedError
from modeling_ulip2.training.features import published_features
from modeling_ulip2.training.held_out_loss import held_out_loss
from modeling_ulip2.training.schedule import warmup_cosine
from tests.evaluation.world import CATEGORIES
from tests.training.world import tiny_model, tiny_processor


def arguments(folder, **kwargs) -> Ulip2TrainingArguments:
    settings = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 8,
        "learning_rate": 1e-3,
        "warmup_epochs": 0.5,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return Ulip2TrainingArguments(output_dir=str(folder), **(settings | kwargs))


def make_trainer(folder, train_dataset, model=None, callbacks=None, eval_dataset=None, **kwargs) -> Ulip2Trainer:
    processor = tiny_processor()
    return Ulip2Trainer(
        model=model or tiny_model(drop_path_rate=0.2),
        args=arguments(folder, **kwargs),
        data_collator=TripletCollator(processor, top_k=2, seed=3),
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        processing_class=processor,
        callbacks=callbacks,
    )


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def embedded(dataset_with_features, tower, tmp_path_factory) -> TripletDataset:
    triplets = read_triplets(str(dataset_with_features))
    return TripletDataset(triplets, published_features(str(dataset_with_features), tower))


def test_the_loss_falls_and_the_schedule_is_followed(embedded, tmp_path):
    trainer = make_trainer(tmp_path, embedded, num_train_epochs=8, learning_rate=3e-3)
    trainer.train()
    curve = losses(trainer)
    assert len(curve) == 32 and np.mean(curve[-4:]) < np.mean(curve[:4]) - 0.1
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates == pytest.approx([warmup_cosine(step, 32, 2, 3e-3) for step in range(32)])


def test_parameter_groups(embedded, tmp_path):
    trainer = make_trainer(tmp_path, embedded)
    decayed, others = trainer.create_optimizer().param_groups
    assert decayed["weight_decay"] == 0.1 and others["weight_decay"] == 0
    assert decayed["betas"] == (0.9, 0.98)
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    assert any(parameter is trainer.model.logit_scale for parameter in others["params"])
    grouped = [parameter for group in (decayed, others) for parameter in group["params"]]
    assert len(grouped) == len(list(trainer.model.parameters()))


@pytest.mark.parametrize(("start", "sign"), [(4.6, -1e3), (0.001, 1e3)])
def test_the_logit_scale_is_clamped_after_every_step(embedded, tmp_path, start, sign):
    model, seen = tiny_model(), []
    torch.nn.init.constant_(model.logit_scale, start)
    # a gradient that pushes it out of its range
    model.logit_scale.register_hook(lambda gradient: torch.full_like(gradient, sign))

    class Watch(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            seen.append(model.logit_scale.item())

    make_trainer(tmp_path, embedded, model, [Watch()], learning_rate=0.5, warmup_epochs=0, max_steps=3).train()
    assert seen == pytest.approx([4.6052 if sign < 0 else 0.0] * 3)


class StopAfterEpoch(TrainerCallback):
    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_training_stop = True


class StopAfterStep(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


@pytest.mark.parametrize(("stop", "workers"), [(StopAfterEpoch(), 0), (StopAfterStep(3), 0), (StopAfterStep(6), 2)])
def test_a_resumed_run_has_the_same_curve_and_weights(embedded, tmp_path, stop, workers):
    """Order of the data, views, captions, augmentation and stochastic depth go on as if nothing had happened."""
    straight = make_trainer(tmp_path / "straight", embedded)
    straight.train()
    settings = {"save_strategy": "steps", "save_steps": 1, "dataloader_num_workers": workers}
    stopped = make_trainer(tmp_path / "resumed", embedded, callbacks=[stop], **settings)
    stopped.train()
    assert 0 < len(losses(stopped)) < len(losses(straight)) == 8
    resumed = make_trainer(tmp_path / "resumed", embedded, model=tiny_model(seed=9, drop_path_rate=0.2), **settings)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == pytest.approx(losses(straight), abs=1e-6)
    for name, value in straight.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, atol=1e-6, rtol=1e-5)


def test_augmentation_changes_from_epoch_to_epoch(embedded, tmp_path):
    seen: list[int] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            seen.append(int(collator._epoch))

    trainer = make_trainer(tmp_path, embedded, callbacks=[Watch()])
    collator = trainer.data_collator
    trainer.train()
    assert seen == [0] * 4 + [1] * 4


def test_a_stream_trains_and_resumes_beyond_its_first_pass(dataset, tower, tmp_path):
    """Raw rows: images and captions go through the tower in every step."""

    def stream() -> TripletStream:
        return TripletStream(read_triplets(str(dataset), streaming=True), seed=1, shuffle_buffer=6)

    def model(seed: int) -> Ulip2Model:
        own = tiny_model(seed)
        own.set_clip_model(tower.pretrained_model)
        return own

    settings = {"max_steps": 7, "save_strategy": "steps", "save_steps": 6}
    straight = make_trainer(tmp_path / "straight", stream(), model(0), **settings)
    straight.train()
    assert len(losses(straight)) == 7
    make_trainer(tmp_path / "resumed", stream(), model(0), [StopAfterStep(6)], **settings).train()
    resumed = make_trainer(tmp_path / "resumed", stream(), model(5), **settings)
    resumed.train(resume_from_checkpoint=True)
    assert losses(resumed) == pytest.approx(losses(straight), abs=1e-6)
    saved = (tmp_path / "resumed" / "checkpoint-6" / "model.safetensors").stat().st_size
    assert saved < 2 * sum(p.numel() * 4 for p in resumed.model.parameters()), "the tower is no part of a checkpoint"


def test_evaluation_sees_clouds_as_they_are(embedded, tmp_path):
    trainer = make_trainer(tmp_path, embedded)
    first, second = (trainer.evaluate(embedded)["eval_loss"] for _ in range(2))
    assert first == second
    batch = next(iter(trainer.get_eval_dataloader(embedded)))
    torch.testing.assert_close(batch["point_values"][..., :3].norm(dim=-1).amax(dim=1), torch.ones(8))
    assert trainer.data_collator.augmentation is not None


def test_the_evaluation_loss_has_equally_many_negatives_for_every_shape(embedded, tmp_path):
    """16 shapes in batches of 8 and of 6: the last batch of 4 is filled up, and no shape counts twice."""
    trainer = make_trainer(tmp_path, embedded)
    model, batch = trainer.model.eval(), trainer.data_collator.for_evaluation()([*embedded])
    with torch.no_grad():
        whole = model(**batch)
    points, texts, images = whole.point_embeds, whole.text_embeds, whole.image_embeds

    def expected(size: int) -> float:
        total = 0.0
        for row in range(16):
            group = [(row // size * size + place) % 16 for place in range(size)]
            for partner in (texts, images):
                for one, other in ((points, partner), (partner, points)):
                    cosines = model.logit_scale.exp() * one[row] @ other[group].T
                    total -= cosines.log_softmax(dim=0)[row % size].item() / 2
        return total / 16

    for size in (8, 6, 5):
        metrics = make_trainer(tmp_path, embedded, model, per_device_eval_batch_size=size).evaluate(embedded)
        assert metrics["eval_loss"] == pytest.approx(expected(size), rel=1e-5)
        assert metrics["eval_loss_candidates"] == size
    # in one batch it is the loss of the training
    metrics = make_trainer(tmp_path, embedded, model, per_device_eval_batch_size=64).evaluate(embedded)
    assert metrics["eval_loss"] == pytest.approx(whole.loss.item(), rel=1e-5)
    assert metrics["eval_loss_candidates"] == 16


def test_shapes_beyond_a_whole_group_change_the_loss_by_their_own_part_alone():
    """Blind embeddings have ln B in each direction for every shape, however many are left for the last group."""
    same = torch.nn.functional.normalize(torch.ones(11, 4), dim=-1)
    for count in (4, 5, 7, 8, 11):
        loss, candidates = held_out_loss(same[:count], [same[:count], same[:count]], 50.0, 4)
        assert loss == pytest.approx(2 * np.log(4)) and candidates == 4
    own = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    alone, _ = held_out_loss(own, [own.roll(1, 0)], 3.0, 9)
    assert alone == pytest.approx(contrastive_loss(own, own.roll(1, 0), None, torch.tensor(3.0)).item(), rel=1e-5)
    with pytest.raises(ValueError, match="nothing to compare"):
        held_out_loss(own[:0], [own[:0]], 1.0, 4)


@pytest.mark.parametrize("processes", [2, 3, 20])
def test_every_process_makes_equally_many_passes_over_held_out_shapes(
    dataset_with_features, tower, monkeypatch, processes
):
    """16 shapes: with 3 processes 6, 5 and 5, with 20 one or none; sharded parameters need all in every pass."""
    triplets, model = read_triplets(str(dataset_with_features)), tiny_model().eval()
    evaluation = HeldOutEvaluation(triplets, tower, tiny_processor().feature_extractor, batch_size=2)
    expected, passes, parts = evaluation._embed(model), [], []
    real = held_out.embed_points

    def count(model, extractor, rows, *rest, **options):
        passes.append(len(rows))
        return real(model, extractor, rows, *rest, **options)

    monkeypatch.setattr(held_out, "embed_points", count)
    # the last process that arrives has what the others gave
    monkeypatch.setattr(held_out, "gather_object", lambda given: parts.extend(given) or parts)
    for index in range(processes):
        state = SimpleNamespace(process_index=index, num_processes=processes)
        monkeypatch.setattr(held_out, "PartialState", lambda state=state: state)
        found = evaluation._embed(model) if index == processes - 1 else _given(evaluation, model)
    assert len(set(passes)) == 1 and passes[0] == -(-16 // processes)
    torch.testing.assert_close(found, expected)


def _given(evaluation: HeldOutEvaluation, model: Ulip2Model) -> None:
    try:
        evaluation._embed(model)
    except (RuntimeError, ValueError):
        pass  # parts of the later processes are not there yet


def test_held_out_shapes_are_measured_at_every_evaluation(dataset_with_features, embedded, tower, tmp_path):
    triplets = read_triplets(str(dataset_with_features))
    labels = {name: CATEGORIES[index % 3] for index, name in enumerate(triplets["id"]) if index < 14}
    trainer = make_trainer(tmp_path, embedded, eval_dataset=embedded, eval_strategy="epoch")
    evaluation = HeldOutEvaluation(triplets, tower, trainer.processing_class.feature_extractor, labels, batch_size=5)
    trainer.add_callback(HeldOutCallback(trainer, evaluation))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "eval_zero_shot_top1" in entry]
    assert len(logged) == 2
    expected = {
        f"eval_{direction}_{figure}"
        for direction in ("text_to_shape", "shape_to_text", "image_to_shape")
        for figure in ("recall_at_1", "recall_at_5", "recall_at_10", "median_rank")
    }
    assert expected <= set(logged[0])
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] > 0 and metrics["eval_zero_shot_top3"] == 1.0
    assert metrics["eval_zero_shot_top1"] == pytest.approx(logged[-1]["eval_zero_shot_top1"])
    assert trainer.model.training is False


def test_the_next_training_with_a_tower_does_not_embed_its_classes_again(
    dataset_with_features, tower, tmp_path, monkeypatch
):
    triplets = read_triplets(str(dataset_with_features))
    labels = {name: CATEGORIES[index % 3] for index, name in enumerate(triplets["id"])}
    asked: list[list[str]] = []
    real = type(tower).encode_text
    monkeypatch.setattr(
        type(tower), "encode_text", lambda self, texts, *rest: asked.append(texts) or real(self, texts)
    )
    found = [
        HeldOutEvaluation(triplets, tower, tiny_processor().feature_extractor, labels, templates, cache_dir=tmp_path)
        for templates in (["a {}"], ["a {}"], ["the {}"])
    ]
    prompts = [own for own in asked if any(text in ("a chair", "the chair") for text in own)]
    assert [own[0].split()[0] for own in prompts] == ["a", "the"]
    assert torch.equal(found[0].class_embeds, found[1].class_embeds)
    assert not torch.equal(found[0].class_embeds, found[2].class_embeds)


def test_a_perfect_model_is_measured_as_perfect(dataset_with_features, tower):
    """Point embeddings that equal each shape's name in the tower's space find it, and are found by it."""
    triplets = read_triplets(str(dataset_with_features))
    evaluation = HeldOutEvaluation(triplets, tower, tiny_processor().feature_extractor)
    model, names = tiny_model(), iter(triplets["name"])

    def features(point_values):
        texts = [next(names) for _ in range(len(point_values))]
        return BaseModelOutputWithPooling(pooler_output=tower.encode_text(texts))

    model.get_point_features = features
    metrics = evaluation(model)
    assert metrics["text_to_shape_recall_at_1"] == metrics["shape_to_text_recall_at_1"] == 1.0
    assert "zero_shot_top1" not in metrics and metrics["image_to_shape_recall_at_1"] < 1.0


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change(embedded, tmp_path):
    model = tiny_model()
    trainer = make_trainer(tmp_path, embedded, model)
    before = {name: value.clone() for name, value in model.named_parameters()}
    real = model.forward

    def broken(*args, **kwargs):
        output = real(*args, **kwargs)
        output.loss = output.loss * float("nan")
        return output

    model.forward = broken
    with pytest.raises(FloatingPointError, match="the loss is nan at step 1.*learning rate"):
        trainer.train()
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_loss_that_never_changes_stops_the_run():
    guard = LossGuard(patience=3)
    for loss in (1.0, 1.0, 2.0, 2.0):
        guard.check(loss, "step 1")
    with pytest.raises(NothingLearnedError, match="exactly 2.0 for 3 steps up to step 5 .it began at 1.0"):
        guard.check(2.0, "step 5")


@pytest.mark.parametrize(
    ("curve", "first", "learned"),
    [
        ([4.0, 2.0] + [0.0] * 30, None, True),
        ([4.0, 2.0] + [1e-7] * 30, None, True),
        ([0.004] * 30, None, True),  # begun where nothing is left, e.g. from a trained model
        ([4.0, 3.0] + [1.4] * 30, None, True),  # a floor, as of two equal shapes in the batch or smoothed labels
        ([4.1] * 30, None, False),
        ([4.0, 1.0] + [4.2] * 30, None, False),  # collapsed: all embeddings are the same
        ([1.4] * 30, 4.0, True),  # resumed
        ([4.0] * 30, 4.1, False),
    ],
)
def test_a_loss_that_stands_still_is_told_apart_by_where_it_stands(curve, first, learned, caplog):
    guard = LossGuard(first=first)
    if learned:
        for step, loss in enumerate(curve):
            guard.check(loss, f"step {step}")
        assert caplog.text.count("nothing is left to learn") == 1
    else:
        with pytest.raises(NothingLearnedError, match="nothing is learned"):
            for step, loss in enumerate(curve):
                guard.check(loss, f"step {step}")


def test_a_run_that_has_converged_goes_on(embedded, tmp_path, caplog):
    """Real steps whose loss is near zero: the run ends by itself, after all its steps."""
    model = tiny_model()
    real = model.forward

    def solved(*args, **kwargs):
        output = real(*args, **kwargs)
        output.loss = output.loss * 0
        return output

    model.forward = solved
    trainer = make_trainer(tmp_path, embedded, model, max_steps=30)
    trainer.train()
    assert trainer.state.global_step == 30 and "nothing is left to learn" in caplog.text


def test_impossible_batches_are_refused(embedded, tmp_path):
    with pytest.raises(ValueError, match="at least 2 clouds"):
        make_trainer(tmp_path, embedded, per_device_train_batch_size=1)
    with pytest.raises(ValueError, match="16 training shapes do not fill one batch of 17"):
        make_trainer(tmp_path, embedded, per_device_train_batch_size=17)


def test_defaults_are_the_published_settings(tmp_path):
    args = Ulip2TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert (args.learning_rate, args.start_learning_rate, args.final_learning_rate) == (3e-3, 1e-6, 1e-5)
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon, args.weight_decay) == (0.9, 0.98, 1e-8, 0.1)
    assert args.num_train_epochs == 250 and args.per_device_train_batch_size == 64
    assert args.warmup_steps_of(2500) == 10
    assert Ulip2TrainingArguments(str(tmp_path), use_cpu=True, warmup_steps=0.2).warmup_steps_of(100) == 20


@pytest.mark.parametrize(
    ("cores", "processes", "on_cpu", "workers"),
    [(2, 1, True, 0), (64, 1, True, 0), (2, 1, False, 1), (96, 8, False, 11), (128, 1, False, 12), (4, 8, False, 0)],
)
def test_workers_follow_the_cores(cores, processes, on_cpu, workers, tmp_path):
    assert automatic_workers(cores, processes, on_cpu) == workers
    assert arguments(tmp_path).dataloader_num_workers == 0
    assert arguments(tmp_path, dataloader_num_workers=3).dataloader_num_workers == 3


def test_contradictory_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="num_train_epochs must be positive"):
        arguments(tmp_path, num_train_epochs=0)
    with pytest.raises(ValueError, match="remove_unused_columns"):
        arguments(tmp_path, remove_unused_columns=True)


@pytest.mark.parametrize("settings", [{"num_train_epochs": 1}, {"num_train_epochs": 0.5}, {"max_steps": 3}])
def test_a_short_run_has_a_short_warm_up(embedded, tmp_path, settings, caplog):
    """With the published warm-up of one epoch, as a beginner asks for a short run."""
    trainer = make_trainer(tmp_path, embedded, **({"warmup_epochs": 1.0} | settings))
    assert ("is shortened to" in caplog.text) is ("num_train_epochs" in settings)
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert max(rates) > 0.9e-3
    linear = arguments(tmp_path, num_train_epochs=1, warmup_epochs=1, lr_scheduler_type="linear")
    assert linear.warmup_epochs == 1


def test_without_held_out_rows_nothing_is_evaluated(embedded, dataset, tower, tmp_path, caplog):
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    trainer = make_trainer(tmp_path / "one", embedded, **settings)
    trainer.train()
    assert "no held-out rows: eval_strategy epoch is left out" in caplog.text and len(losses(trainer)) == 8
    # nor on a stream, whose checkpoints come without an end of an epoch
    model = tiny_model()
    model.set_clip_model(tower.model)
    stream = TripletStream(read_triplets(str(dataset), streaming=True))
    trainer = make_trainer(tmp_path / "two", stream, model, max_steps=3, **settings)
    assert trainer.args.save_strategy == IntervalStrategy.STEPS
    trainer.train()
    assert list((tmp_path / "two").glob("checkpoint-*"))


def test_a_finished_training_keeps_its_record(embedded, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 4, "eval_dataset": embedded}
    metrics = make_trainer(tmp_path, embedded, **settings).train_and_save(once=True)
    record = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    assert json.loads(record["train_results.json"])["train_loss"] > 1 and metrics["eval_loss"] > 0
    checkpoint = str(tmp_path / "checkpoint-8")
    again = make_trainer(tmp_path, embedded, **settings)
    assert again.train_and_save(checkpoint, once=True) == json.loads(record["eval_results.json"])
    assert again.state.global_step == 0, "nothing was trained"
    assert {path.name: path.read_text() for path in tmp_path.glob("*.json")} == record

    # stopped after the last step, before the record was written
    for name in ("train_results.json", "eval_results.json", "trainer_state.json"):
        (tmp_path / name).unlink()
    make_trainer(tmp_path, embedded, **settings).train_and_save(checkpoint, once=True)
    results = json.loads((tmp_path / "train_results.json").read_text())
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    curve = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert results["train_loss"] == pytest.approx(sum(curve) / 8) and len(curve) == 8
    assert all(entry.get("train_loss") != 0 for entry in state["log_history"])


def test_other_schedules_are_those_of_transformers(embedded, tmp_path):
    trainer = make_trainer(tmp_path, embedded, lr_scheduler_type="constant", max_steps=3)
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates == [1e-3] * 3


def test_the_card_tells_of_the_run(embedded, tmp_path):
    trainer = make_trainer(tmp_path, embedded, eval_dataset=embedded)
    trainer.train()
    trainer.evaluate()
    trainer.save_model()
    assert "not stated" in (tmp_path / "README.md").read_text()
    trainer.create_model_card(license="mit", dataset_tags="someone/triplets", tags="boxes")
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.datasets) == ("mit", ["someone/triplets"]) and "boxes" in card.data.tags
    assert "8 steps (2 epochs) of 4 clouds" in card.text and "learning rate 0.001" in card.text
    result, candidates = card.data.eval_results
    assert (candidates.metric_name, candidates.metric_value) == ("loss_candidates", 8)
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert result.metric_name == "loss" and result.metric_value == pytest.approx(evaluated[-1], abs=1e-4)


def test_a_model_that_names_a_folder_is_not_uploaded(embedded, tower_folder, tmp_path, monkeypatch):
    """Told before anything is created on the hub, and before the training."""

    def reached(*arguments, **kwargs):
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("transformers.Trainer.init_hf_repo", reached)
    monkeypatch.setattr("transformers.Trainer.push_to_hub", reached)
    trainer = make_trainer(tmp_path, embedded)
    trainer.model.config.clip_name_or_path = str(tower_folder)
    for upload in (trainer.init_hf_repo, trainer.push_to_hub):
        with pytest.raises(ValueError, match="(?s)a path of this machine.*train without push_to_hub"):
            upload()
    with pytest.raises(ValueError, match="a path of this machine"):
        make_trainer(tmp_path, embedded, model=trainer.model, push_to_hub=True)
    trainer.model.config.clip_name_or_path = "someone/clip"
    with pytest.raises(AssertionError, match="the hub was asked"):
        trainer.push_to_hub()
