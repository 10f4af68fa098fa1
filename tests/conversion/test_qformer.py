"""Q-Formers of BLIP-2 and InstructBLIP, tiny and random, saved here and read by the connector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2VisionConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    InstructBlipVisionConfig,
    OPTConfig,
)

from modeling_ulip2.conversion.qformer import initialize_qformer, qformer_config_of
from tests.models import captioning_world as world

VISION = {"hidden_size": 24, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 8, "patch_size": 4}
TEXT = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 16}
TEXT |= {"word_embed_proj_dim": 16, "max_position_embeddings": 32}


def published(kind: str, folder: Path, vision_width: int = 24) -> Any:
    """A random model of transformers, saved; its vision features are as wide as the tiny encoder's tokens (24)."""
    torch.manual_seed(5)
    vision = {**VISION, "hidden_size": vision_width}
    parts: dict[str, Any] = {"qformer_config": {**world.QFORMER, "encoder_hidden_size": vision_width}}
    parts |= {"text_config": OPTConfig(**TEXT), "num_query_tokens": world.QUERIES, "initializer_range": 0.5}
    model: Any
    if kind == "blip2":
        model = Blip2ForConditionalGeneration(Blip2Config(vision_config=Blip2VisionConfig(**vision), **parts))
    else:
        model = InstructBlipForConditionalGeneration(
            InstructBlipConfig(vision_config=InstructBlipVisionConfig(**vision), **parts)
        )
    torch.nn.init.normal_(model.get_parameter([n for n, _ in model.named_parameters() if "query_tokens" in n][0]))
    # in several files, as the published models are
    model.save_pretrained(folder, max_shard_size="20KB")
    return model.eval()


def of_published(model: Any, name: str) -> torch.Tensor:
    """A tensor of the published model's Q-Former, wherever it keeps that."""
    state = model.state_dict()
    return next(state[key] for key in state if key.endswith(name))


@pytest.fixture(scope="module")
def instructblip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    folder = tmp_path_factory.mktemp("instructblip")
    return published("instructblip", folder), str(folder)


@pytest.fixture(scope="module")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str]:
    folder = tmp_path_factory.mktemp("blip2")
    return published("blip2", folder), str(folder)


def test_instructblip(instructblip: tuple[Any, str], parts: tuple[str, str]) -> None:
    """All of the Q-Former is read: from the same features and instruction both make the same of their queries."""
    source, folder = instructblip
    fields = qformer_config_of(folder)
    assert fields["num_query_tokens"] == world.QUERIES and fields["qformer_config"]["hidden_size"] == 16
    model, processor = world.captioner(*parts, **fields)
    report = initialize_qformer(model, folder)
    fresh = {"feature_norm.weight", "feature_norm.bias", "language_projection.weight", "language_projection.bias"}
    assert set(report.fresh) == fresh and not report.copied
    assert set(report.loaded) | fresh == set(model.connector.state_dict())

    features = torch.randn(2, 5, 24)
    tokens = processor.qformer_tokenizer(["a red chair", "a lamp"], padding=True, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    qformer = next(m for name, m in source.named_modules() if name.split(".")[-1] == "qformer")
    queries = of_published(source, "query_tokens").expand(2, -1, -1)
    with torch.no_grad():
        want = qformer(
            input_ids=ids,
            attention_mask=torch.cat([mask.new_ones(2, world.QUERIES), mask], dim=1),
            query_embeds=queries,
            encoder_hidden_states=torch.nn.functional.layer_norm(features, (24,)),
        ).last_hidden_state[:, : world.QUERIES]
        model.connector.language_projection = torch.nn.Identity()
        found = model.connector(features, qformer_input_ids=ids, qformer_attention_mask=mask)
    torch.testing.assert_close(found, want, atol=1e-5, rtol=1e-4)


def test_blip2(blip2: tuple[Any, str], parts: tuple[str, str]) -> None:
    source, folder = blip2
    fields = qformer_config_of(folder)
    # reading no text, it is all of BLIP-2's
    model, _ = world.captioner(*parts, **fields | {"instruction_aware": False})
    report = initialize_qformer(model, folder)
    assert all(name.startswith(("feature_norm.", "language_projection.")) for name in report.fresh)
    features = torch.randn(2, 5, 24)
    qformer = next(m for name, m in source.named_modules() if name.split(".")[-1] == "qformer")
    with torch.no_grad():
        want = qformer(
            query_embeds=of_published(source, "query_tokens").expand(2, -1, -1),
            encoder_hidden_states=torch.nn.functional.layer_norm(features, (24,)),
        ).last_hidden_state
        model.connector.language_projection = torch.nn.Identity()
        torch.testing.assert_close(model.connector(features), want, atol=1e-5, rtol=1e-4)

    # reading instructions, its layers for text begin as those for queries
    aware, _ = world.captioner(*parts, **{**fields, "qformer_config": {**fields["qformer_config"], "vocab_size": 50}})
    report = initialize_qformer(aware, folder)
    layer = aware.connector.qformer.encoder.layer[1]
    assert torch.equal(layer.intermediate.dense.weight, layer.intermediate_query.dense.weight)
    assert "qformer.encoder.layer.1.output.dense.weight" in report.copied
    assert "qformer.embeddings.word_embeddings.weight" in report.fresh


def test_features_of_another_width(tmp_path: Path, parts: tuple[str, str]) -> None:
    """What reads features starts anew, all else is read."""
    published("instructblip", tmp_path, vision_width=32)
    model, _ = world.captioner(*parts, **qformer_config_of(str(tmp_path)))
    report = initialize_qformer(model, str(tmp_path))
    new = {name for name in report.fresh if name.startswith("qformer.")}
    assert new == {f"qformer.encoder.layer.0.crossattention.attention.{part}.weight" for part in ("key", "value")}
    assert "qformer.encoder.layer.0.crossattention.attention.query.weight" in report.loaded


def test_bad_input(instructblip: tuple[Any, str], parts: tuple[str, str]) -> None:
    _, folder = instructblip
    with pytest.raises(ValueError, match="connector='mlp' has no Q-Former"):
        initialize_qformer(world.captioner(*parts, connector="mlp")[0], folder)
    narrow = {**world.QFORMER, "intermediate_size": 20}
    with pytest.raises(ValueError, match=r"intermediate.* has shape \(24, 16\), the connector's has \(20, 16\)"):
        initialize_qformer(world.captioner(*parts, qformer_config=narrow)[0], folder)
    with pytest.raises(ValueError, match="is a llama, which has no Q-Former"):
        qformer_config_of(parts[1])
    with pytest.raises(ValueError, match="holds no Q-Former"):
        initialize_qformer(world.captioner(*parts)[0], parts[1])
