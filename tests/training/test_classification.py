from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2ForPointCloudClassification
from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.data.labeled import ClassificationCollator, LabeledClouds, LabeledSplit
from modeling_ulip2.evaluation.metrics.classification import classification_metrics, predict_logits
from modeling_ulip2.training.classification import ClassificationTrainer, ClassificationTrainingArguments
from modeling_ulip2.training.param_groups import encoder_depths
from modeling_ulip2.training.schedule import warmup_cosine
from tests.models import tiny
from tests.training.world import ENCODER, triplet_rows

NAMES = ["chair", "lamp", "table"]


def labeled(shapes: int = 12, seed: int = 0) -> LabeledClouds:
    """Boxes whose proportions tell their class."""
    rows = [{name: row[name] for name in ("id", "xyz", "rgb")} for row in triplet_rows(shapes, seed=seed)]
    return LabeledClouds(Dataset.from_list(rows), np.arange(shapes) % 3, NAMES)


def model(**config) -> Ulip2ForPointCloudClassification:
    torch.manual_seed(0)
    head = {"id2label": dict(enumerate(NAMES)), "classifier_dropout": 0.1}
    return Ulip2ForPointCloudClassification(Ulip2Config(point_config=ENCODER, **head | config))


def make_trainer(folder, **settings) -> ClassificationTrainer:
    defaults = {
        "num_train_epochs": 10,
        "schedule_epochs": 8,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    args = ClassificationTrainingArguments(output_dir=str(folder), **defaults | settings)
    collator = ClassificationCollator(Ulip2FeatureExtractor(num_points=64), PointAugmentation(rotate_y=False))
    return ClassificationTrainer(
        model=model(),
        args=args,
        data_collator=collator,
        train_dataset=labeled(),
        eval_dataset=labeled(9, seed=7),
        compute_metrics=classification_metrics,
    )


def test_predictions_leave_the_trainings_draws_alone(tmp_path):
    """`predict_logits` between two epochs: the collator goes on in the epoch where it was."""
    collator = ClassificationCollator(Ulip2FeatureExtractor(num_points=64), PointAugmentation(rotate_y=False))
    collator.set_epoch(7)
    clouds, before = labeled(), collator([labeled()[0]])["point_values"]
    for votes in (1, 3):
        predict_logits(model(), collator, clouds, votes=votes)
        torch.testing.assert_close(collator([clouds[0]])["point_values"], before, rtol=0, atol=0)
    other = collator.for_evaluation()
    other.set_epoch(2)
    assert int(collator._epoch) == 7 and int(other._epoch) == 2


def test_a_short_run_has_a_short_schedule(tmp_path, caplog):
    """`--num_train_epochs 1` with a published configuration, whose cosine takes 200 epochs."""
    trainer = make_trainer(tmp_path, num_train_epochs=1, schedule_epochs=200, warmup_epochs=10)
    assert "a schedule of 200 epochs is longer than the training" in caplog.text
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert len(rates) == 3 and max(rates) > 0.9 * 3e-3


def test_one_class_is_refused(tmp_path):
    rows = labeled()
    one = LabeledClouds(rows._plain, np.zeros(12, dtype=int), ["chair"])
    with pytest.raises(ValueError, match="one class alone, 'chair'"):
        LabeledSplit(one, one)


def test_it_learns_and_the_schedule_ends_before_the_training(tmp_path):
    trainer = make_trainer(tmp_path)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before["eval_loss"] - 0.2 and after["eval_accuracy"] >= 8 / 9
    assert after["eval_class_average_accuracy"] == pytest.approx(after["eval_accuracy"]), "all classes are as large"
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates == pytest.approx([warmup_cosine(step, 24, 0, 3e-3, final=1e-4) for step in range(30)])
    assert rates[24:] == [1e-4] * 6


def test_lower_layers_learn_more_slowly(tmp_path):
    trainer = make_trainer(tmp_path, layer_decay=0.5, num_train_epochs=1, schedule_epochs=1)
    groups = trainer.create_optimizer().param_groups
    rate = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    own = {name: rate[id(parameter)] for name, parameter in trainer.model.named_parameters()}
    assert len(rate) == len(own)
    assert own["classifier.3.weight"] == own["point_model.norm.weight"] == 3e-3
    assert own["point_model.blocks.blocks.1.attn.proj.weight"] == pytest.approx(1.5e-3)
    assert own["point_model.blocks.blocks.0.mlp.fc1.bias"] == pytest.approx(0.75e-3)
    assert own["point_model.cls_token"] == own["point_model.pos_embed.0.weight"] == pytest.approx(0.375e-3)
    assert {group["weight_decay"] for group in groups} == {0.0, 0.05}
    trainer.train()
    final = sorted({group["lr"] for group in trainer.optimizer.param_groups})
    assert final == pytest.approx([factor * 1e-4 for factor in (0.125, 0.25, 0.5, 1)])


@pytest.mark.parametrize("encoder", list(tiny.ENCODERS))
def test_depth_rises_through_every_encoder(encoder):
    fields = {"model_type": encoder, **tiny.ENCODERS[encoder]}
    depths = encoder_depths(Ulip2ForPointCloudClassification(Ulip2Config(point_config=fields)))
    order = list(dict.fromkeys(depths.values()))
    assert set(order) | {0} == set(range(max(order) + 1)), "no layer is skipped"
    assert max(order) >= 2 and depths["classifier.0.weight"] == max(order)
    first = next(iter(depths))
    assert depths[first] == min(order)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer_decay": 0.0}, "layer_decay must lie in"),
        ({"label_smoothing_factor": 0.1}, "use label_smoothing"),
        ({"warmup_epochs": 9}, r"schedule_epochs \(8\) must be more than warmup_epochs \(9\)"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, **settings)
