"""A connector that learns the language model's words before the language model is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from modeling_ulip2.data.captions import CaptionCollator, CaptionDataset
from modeling_ulip2.training.point_features import point_features
from modeling_ulip2.training.word_alignment import align_with_words, answer_tokens, connect, positions_in
from tests.models import captioning_world as world

CAPTIONS = ["a red chair", "a blue table", "a wooden lamp", "the red model"]

STEADY = world.QFORMER | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return world.save_parts(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    clouds = [world.cloud(seed) for seed in range(4)]
    return Dataset.from_dict({"id": list("abcd"), "xyz": [cloud[:, :3] for cloud in clouds]})


@pytest.mark.parametrize("fields", [{"qformer_config": STEADY}, {"connector": "mlp", "compression": "resample"}])
def test_outputs_become_the_words_of_the_answer(
    parts: tuple[str, str], shapes: Dataset, tmp_path: Path, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modeling_ulip2.training.word_alignment.LEARNING_RATE", 1e-2)  # for a tiny connector
    model, processor = world.captioner(*parts, num_query_tokens=5, **fields)
    texts = [{"id": name, "captions": [text]} for name, text in zip("abcd", CAPTIONS, strict=True)]
    features = point_features(model, processor.feature_extractor, shapes, tmp_path)
    dataset = CaptionDataset(shapes, texts, features)
    collator = CaptionCollator(processor, world.PROMPT)
    frozen = {name: p.clone() for name, p in model.named_parameters() if not name.startswith("connector.")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert align_with_words(model, collator, dataset, epochs=60) == 1.0
    for name, parameter in model.named_parameters():
        if name in frozen:
            torch.testing.assert_close(parameter, frozen[name], atol=0, rtol=0)

    batch = collator([dataset[row] for row in range(4)])
    with torch.no_grad():
        outputs = connect(model.eval(), batch)  # (4, 5, H)
    words = model.get_input_embeddings().weight
    used = batch["labels"].unique()
    used = used[used >= 0]
    centered = words[used] - words[used].mean(dim=0)
    likeness = torch.nn.functional.normalize(outputs - words[used].mean(dim=0), dim=-1) @ centered.T
    said = used[(likeness / centered.norm(dim=-1)).argmax(dim=-1)]
    end = processor.tokenizer.eos_token
    assert processor.tokenizer.batch_decode(said)[0].split()[:4] == ["a", "red", "chair", end]
    assert processor.tokenizer.batch_decode(said)[3].split()[:4] == ["the", "red", "model", end]
    # as large as words are
    ratio = (outputs - words[used].mean(dim=0)).norm(dim=-1).mean() / centered.norm(dim=-1).mean()
    assert 0.8 < ratio < 1.25


def test_targets() -> None:
    labels = torch.tensor([[-100, -100, 4, 5, 2], [-100, 7, 8, 9, 2]])
    assert answer_tokens(labels, 4).tolist() == [[4, 5, 2, 2], [7, 8, 9, 2]]
    assert answer_tokens(labels, 2).tolist() == [[4, 5], [7, 8]]
    with pytest.raises(ValueError, match="no answer"):
        answer_tokens(torch.full((2, 3), -100), 2)
    places = positions_in(torch.tensor([2, 4, 7]), torch.tensor([[7, 9], [2, 3]]))
    assert places.tolist() == [[2, -100], [0, -100]]


def test_features_that_are_not_finite(parts: tuple[str, str], shapes: Dataset) -> None:
    model, processor = world.captioner(*parts, connector="mlp", compression="resample")
    texts = [{"id": "a", "captions": ["a chair"]}]

    class Broken(dict):
        def __len__(self) -> int:
            return 1

    features: Any = Broken(a=torch.full((5, model.config.point_hidden_size), torch.inf))
    with pytest.raises(ValueError, match="not finite"):
        align_with_words(model, CaptionCollator(processor), CaptionDataset(shapes.select([0]), texts, features), 1)
