"""`Ulip2ForConditionalGeneration`: loss, gradients, generation. Every check is against the language model alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from modeling_ulip2 import Ulip2ForConditionalGeneration
from modeling_ulip2.models.connectors import pool_tokens
from tests.models import captioning_world as world

CONNECTORS: dict[str, dict[str, Any]] = {
    "qformer": {},
    "qformer, one vector, as in the paper": {"point_feature_type": "embeds"},
    "qformer without instruction": {"instruction_aware": False, "point_feature_type": "pooled"},
    "mlp, pooled": {"connector": "mlp"},
    "mlp, resampled": {"connector": "mlp", "compression": "resample"},
    "mlp, one vector": {"connector": "mlp", "point_feature_type": "pooled", "num_query_tokens": 1},
}


def training_batch(processor: Any, answers: tuple[str, ...] = ("a red chair.", "a lamp."), **kwargs: Any) -> Any:
    talks = [world.conversation(world.cloud(seed), answer=answer) for seed, answer in enumerate(answers)]
    return processor.apply_chat_template(talks, tokenize=True, return_dict=True, return_labels=True, **kwargs)


def prompt_batch(processor: Any, *talks: Any, **kwargs: Any) -> Any:
    return processor.apply_chat_template(
        list(talks), add_generation_prompt=True, tokenize=True, return_dict=True, **kwargs
    )


@pytest.mark.parametrize("fields", CONNECTORS.values(), ids=CONNECTORS.keys())
def test_gradients_reach_all_of_the_connector_and_nothing_else(parts: tuple[str, str], fields: dict[str, Any]) -> None:
    model, processor = world.captioner(*parts, **fields)
    batch = training_batch(processor)
    before = model(**batch).loss
    model.train()
    assert not model.language_model.training and not model.point_model.training
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        trains = name.startswith("connector.")
        assert parameter.requires_grad == trains and (parameter.grad is not None) == trains, name
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    for _ in range(10):
        optimizer.step()
        optimizer.zero_grad()
        model(**batch).loss.backward()
    assert model.eval()(**batch).loss < before
    # a cloud is told from another
    other = batch | {"point_values": batch["point_values"].flip(0)}
    assert not torch.allclose(model(**other).logits, model(**batch).logits, atol=1e-3)


def test_the_loss_is_that_of_the_language_model(captioner: tuple[Any, Any]) -> None:
    """On the embeddings with the clouds put in by hand, and over labeled positions alone."""
    model, processor = captioner
    batch = training_batch(processor)
    with torch.no_grad():
        output = model(**batch)
        embeds = model.get_input_embeddings()(batch["input_ids"].clamp(max=world.VOCABULARY - 1))  # (B, L, C)
        places = batch["input_ids"] == processor.point_token_id
        assert places.sum(dim=1).tolist() == [world.QUERIES] * 2
        for row in range(2):
            embeds[row, places[row]] = output.point_hidden_states[row]
        want = []
        for row in range(2):  # without padding, one by one
            kept = batch["attention_mask"][row].bool()
            logits = model.language_model(inputs_embeds=embeds[row, kept][None]).logits[0, :-1]
            want.append(F.cross_entropy(logits, batch["labels"][row, kept][1:], reduction="none", ignore_index=-100))
    labeled = [int((row != -100).sum()) for row in batch["labels"]]
    assert labeled == [5, 4]  # the words, the stop and the end token
    assert output.logits.shape == (2, 5, world.VOCABULARY)
    torch.testing.assert_close(output.loss, torch.cat(want).sum() / sum(labeled))
    # what Trainer passes when a step has several batches
    half = model(**batch, num_items_in_batch=torch.tensor(2 * sum(labeled))).loss
    torch.testing.assert_close(half, output.loss / 2)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(captioner: tuple[Any, Any], side: str) -> None:
    model, processor = captioner
    talks = [
        world.conversation(world.cloud(0), answer="a red chair."),
        world.conversation(world.cloud(1), prompt="what color is it and what is the model", answer="blue"),
    ]
    settings = {"tokenize": True, "return_dict": True, "processor_kwargs": {"padding_side": side}}
    with torch.no_grad():
        together = model(**processor.apply_chat_template(talks, **settings)).logits
        for talk, logits in zip(talks, together, strict=True):
            alone = model(**processor.apply_chat_template(talk, **settings)).logits[0]
            kept = logits[-len(alone) :] if side == "left" else logits[: len(alone)]
            torch.testing.assert_close(kept, alone, atol=1e-4, rtol=1e-4)


GENERATION: dict[str, dict[str, Any]] = {
    "greedy": {},
    "beams": {"num_beams": 3, "length_penalty": 0.0},
    "no cache": {"use_cache": False},
}


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("settings", GENERATION.values(), ids=GENERATION.keys())
def test_a_batch_is_generated_as_its_members(
    tmp_path_factory: pytest.TempPathFactory, kind: str, settings: dict[str, Any]
) -> None:
    model, processor = world.captioner(*world.save_parts(tmp_path_factory.mktemp("parts"), kind))
    talks = [
        world.conversation(world.cloud(0)),
        world.conversation(world.cloud(1), prompt="what color is it and what is the 3d model"),
        world.conversation(world.cloud(0), world.cloud(1), prompt="compare"),
    ]
    settings = {"min_new_tokens": 6, "max_new_tokens": 6, **settings}
    together = model.generate(**prompt_batch(processor, *talks), **settings)
    assert together.shape == (3, 6)
    for talk, answer in zip(talks, together, strict=True):
        assert model.generate(**prompt_batch(processor, talk), **settings)[0].tolist() == answer.tolist()
    assert len({tuple(answer) for answer in together.tolist()}) == 3
    if not settings.get("num_beams"):  # the cache gives what the whole text, read anew for each token, gives
        batch = prompt_batch(processor, talks[2])
        for token in together[2].tolist():
            logits = model(**batch).logits[0, -1]
            logits[model.language_model.config.eos_token_id] = -torch.inf  # below min_new_tokens
            assert int(logits.argmax()) == token
            for name, value in (("input_ids", token), ("attention_mask", 1)):
                batch[name] = torch.cat([batch[name], torch.tensor([[value]])], dim=1)


def test_sampling(captioner: tuple[Any, Any]) -> None:
    model, processor = captioner
    batch = prompt_batch(processor, world.conversation(world.cloud(0)))
    settings = {"do_sample": True, "num_return_sequences": 8, "min_new_tokens": 4, "max_new_tokens": 4}
    torch.manual_seed(0)
    answers = model.generate(**batch, **settings)
    assert answers.shape == (8, 4) and len({tuple(row) for row in answers.tolist()}) > 1
    torch.manual_seed(0)
    assert torch.equal(model.generate(**batch, **settings), answers)


def test_several_clouds_and_turns(captioner: tuple[Any, Any]) -> None:
    model, processor = captioner
    first, second = world.cloud(0), world.cloud(1)
    talk = [
        *world.conversation(first, prompt="what is the 3d model", answer="a red chair."),
        *world.conversation(second, prompt="and it"),
    ]
    batch = prompt_batch(processor, talk)
    assert batch["point_values"].shape[0] == 2 and batch["qformer_input_ids"].shape[0] == 2
    logits = model(**batch).logits[0, -1]
    swapped = prompt_batch(
        processor,
        [
            *world.conversation(second, prompt="what is the 3d model", answer="a red chair."),
            *world.conversation(first, prompt="and it"),
        ],
    )
    assert not torch.allclose(model(**swapped).logits[0, -1], logits, atol=1e-3)
    # each cloud is read with the instruction of its own message
    alone = model(**prompt_batch(processor, talk[:1])).point_hidden_states
    torch.testing.assert_close(model(**batch).point_hidden_states[:1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fields", [{}, {"connector": "mlp"}], ids=["qformer", "mlp"])
def test_features_may_be_kept(parts: tuple[str, str], fields: dict[str, Any]) -> None:
    model, processor = world.captioner(*parts, **fields)
    batch = training_batch(processor)
    features = model.get_point_features(batch["point_values"]).pooler_output
    assert not features.requires_grad
    without = {name: value for name, value in batch.items() if name != "point_values"}
    torch.testing.assert_close(model(**without, point_features=features).loss, model(**batch).loss)
    # as a training script does: conversations without data
    talks = [[{"role": "user", "content": [{"type": "point_cloud"}, {"type": "text", "text": world.PROMPT}]}]] * 2
    prompts = prompt_batch(processor, *talks)
    assert "point_values" not in prompts
    want = model.generate(**prompt_batch(processor, *(world.conversation(world.cloud(i)) for i in range(2))))
    assert torch.equal(model.generate(**prompts, point_features=features), want)


def test_pooling_averages_what_is_nearest_to_the_first_centers() -> None:
    centers = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0.9, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0, 0, 0]]])
    tokens = torch.arange(6.0).view(1, 6, 1)
    pooled = pool_tokens(tokens, centers, 2)
    torch.testing.assert_close(pooled, torch.tensor([[[(0 + 3 + 4 + 5) / 4], [(1 + 2) / 2]]]))
    # a center that repeats another keeps its own token
    repeated = pool_tokens(tokens[:, :2], torch.zeros(1, 2, 3), 2)
    torch.testing.assert_close(repeated, torch.tensor([[[0.5], [1.0]]]))
    with pytest.raises(ValueError, match="6 tokens, which cannot be pooled into num_query_tokens = 7"):
        pool_tokens(tokens, centers, 7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_language_model_of_16_bits(parts: tuple[str, str], dtype: torch.dtype) -> None:
    """The connector stays in float32 and gets finite gradients; answers need no further care."""
    torch.manual_seed(3)
    model = Ulip2ForConditionalGeneration.from_point_language_pretrained(
        *parts, qformer_config=world.QFORMER, num_query_tokens=3, language_model_kwargs={"dtype": dtype}
    )
    processor = world.Ulip2CaptioningProcessor.from_model(model, world.qformer_tokenizer())
    assert model.language_model.dtype == dtype and model.connector.query_tokens.dtype == torch.float32
    model.train()(**training_batch(processor)).loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)
    assert model.eval().generate(**prompt_batch(processor, world.conversation(world.cloud(0)))).shape[0] == 1
    whole = model.to(dtype)  # everything in 16 bits, as for generation on a GPU
    assert whole(**prompt_batch(processor, world.conversation(world.cloud(0)))).logits.isfinite().all()


def test_gradient_checkpointing_gives_the_same_gradients(parts: tuple[str, str]) -> None:
    gradients = []
    for checkpointing in (False, True):
        model, processor = world.captioner(
            *parts, qformer_config={**world.QFORMER, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        )
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        layers = [m for m in model.language_model.modules() if getattr(m, "gradient_checkpointing", False)]
        assert bool(layers) == checkpointing and all(layer.training for layer in layers)
        model(**training_batch(processor)).loss.backward()
        gradients.append(model.connector.query_tokens.grad)
    torch.testing.assert_close(*gradients)
