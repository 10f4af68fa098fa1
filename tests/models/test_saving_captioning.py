"""What a captioning checkpoint holds, and how it comes back: by reference, embedded, with an adapter, from a hub."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from transformers import AutoModelForMultimodalLM, AutoProcessor, Trainer, TrainingArguments

from modeling_ulip2 import CardFacts, Ulip2CaptioningProcessor, Ulip2ForConditionalGeneration
from modeling_ulip2.models.model_card import MARK
from tests.hub.fixtures import Uploads
from tests.models import captioning_world as world
from tests.models.test_auto_classes import as_hub_repository, run_as_stranger
from tests.models.test_card import NAME

LORA = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.5}


def batch_of(processor: Any) -> Any:
    talks = [world.conversation(world.cloud(seed), answer="a red chair.") for seed in range(2)]
    return processor.apply_chat_template(talks, tokenize=True, return_dict=True, return_labels=True)


def saved_names(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        return set(tensors.keys())


def with_adapter(parts: tuple[str, str]) -> tuple[Any, Any]:
    model, processor = world.captioner(*parts)
    model.add_lora(LORA)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zeros at first: the adapter would do nothing
            torch.nn.init.normal_(parameter)
    return model, processor


def test_by_reference(captioner: tuple[Any, Any], parts: tuple[str, str], tmp_path: Path) -> None:
    model, processor = captioner
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert saved_names(tmp_path) == {f"connector.{name}" for name in model.connector.state_dict()}
    loaded, info = Ulip2ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert {n for n, p in loaded.named_parameters() if p.requires_grad} == saved_names(tmp_path)
    read = AutoProcessor.from_pretrained(tmp_path)
    assert type(read) is Ulip2CaptioningProcessor and read.point_token_id == processor.point_token_id
    assert read.qformer_tokenizer.get_vocab() == processor.qformer_tokenizer.get_vocab()
    assert type(AutoModelForMultimodalLM.from_pretrained(tmp_path)) is Ulip2ForConditionalGeneration
    batch = batch_of(read)
    assert {name: value.tolist() for name, value in batch.items()} == {
        name: value.tolist() for name, value in batch_of(processor).items()
    }
    torch.testing.assert_close(loaded(**batch).loss, model(**batch).loss)

    # the parts have moved
    config = json.loads((tmp_path / "config.json").read_text())
    fields = ("point_model_name_or_path", "language_model_name_or_path")
    assert all(config[field].startswith("../") for field in fields)  # both can be moved together
    assert tuple(os.path.normpath(tmp_path / config[field]) for field in fields) == parts
    assert (loaded.config.point_model_name_or_path, loaded.config.language_model_name_or_path) == parts
    config["language_model_name_or_path"] = "/nowhere/language"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(OSError, match="(?s)'/nowhere/language' .* pass language_model_name_or_path="):
        Ulip2ForConditionalGeneration.from_pretrained(tmp_path)
    moved = Ulip2ForConditionalGeneration.from_pretrained(tmp_path, language_model_name_or_path=parts[1])
    torch.testing.assert_close(moved(**batch).loss, model(**batch).loss)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])  # the latter ties its embeddings
@pytest.mark.parametrize("adapter", [False, True], ids=["connector", "with adapter"])
def test_embedded(tmp_path: Path, kind: str, adapter: bool) -> None:
    parts = world.save_parts(tmp_path, kind)
    model, processor = with_adapter(parts) if adapter else world.captioner(*parts)
    batch = batch_of(processor)
    model.save_pretrained(tmp_path / "whole", include_point_model=True, include_language_model=True)
    model.save_pretrained(tmp_path / "again")  # afterwards references again
    assert all(name.startswith("connector.") or "lora" in name for name in saved_names(tmp_path / "again"))
    for folder in parts:
        Path(folder).rename(f"{folder}-gone")
    whole = Ulip2ForConditionalGeneration.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(whole(**batch).loss, model(**batch).loss)
    assert {n for n, p in whole.named_parameters() if p.requires_grad} == saved_names(tmp_path / "again")
    answer = {"max_new_tokens": 5, **{key: value for key, value in batch.items() if key != "labels"}}
    assert torch.equal(whole.generate(**answer), model.generate(**answer))


def test_parts_without_a_name_are_embedded(tmp_path: Path) -> None:
    encoder, language = world.point_model(), world.language_model()
    model = Ulip2ForConditionalGeneration.from_point_language_pretrained(
        encoder, language, point_feature_type="embeds", connector="mlp", num_query_tokens=1
    )
    model.save_pretrained(tmp_path)
    loaded = Ulip2ForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.language_model.lm_head.weight, language.lm_head.weight)


def test_an_adapter_is_trained_and_saved(parts: tuple[str, str], tmp_path: Path) -> None:
    model, processor = with_adapter(parts)
    batch = batch_of(processor)
    model.train()
    dropouts = [m for n, m in model.language_model.named_modules() if n.endswith("lora_dropout.default")]
    assert dropouts and all(m.training for m in dropouts) and not model.language_model.training
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        trains = name.startswith("connector.") or ".lora_" in name
        assert parameter.requires_grad == trains and (parameter.grad is not None) == trains, name
    model.eval().save_pretrained(tmp_path)
    own = {f"connector.{name}" for name in model.connector.state_dict()}
    assert {name.split(".")[0] for name in saved_names(tmp_path) - own} == {"language_model"}
    assert all(".lora_" in name for name in saved_names(tmp_path) - own) and len(saved_names(tmp_path) - own) == 8
    loaded = Ulip2ForConditionalGeneration.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(**batch).loss, model(**batch).loss)
    plain, _ = world.captioner(*parts)
    assert not torch.allclose(plain(**batch).loss, model(**batch).loss)
    with pytest.raises(ValueError, match="has an adapter already"):
        loaded.add_lora(LORA)
    with pytest.raises(ValueError, match="modules_to_save and bias would train"):
        plain.add_lora({**LORA, "modules_to_save": ["lm_head"]})
    with pytest.raises(ValueError, match="lora_config: .*rank"):
        plain.add_lora({"rank": 4})


def test_lora_without_peft(parts: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = world.captioner(*parts)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ImportError, match=r'pip install "modeling-ulip2\[caption\]"'):
        model.add_lora(LORA)


def test_trainer_saves_and_resumes_what_trains(parts: tuple[str, str], tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows = [{"seed": seed, "answer": answer} for seed, answer in enumerate(["a red chair.", "a lamp."] * 2)]

    def train(folder: Path, steps: int, resume: bool = False) -> Any:
        model, processor = with_adapter(parts)

        def collate(rows: list[dict[str, Any]]) -> Any:
            talks = [world.conversation(world.cloud(row["seed"]), answer=row["answer"]) for row in rows]
            return dict(processor.apply_chat_template(talks, tokenize=True, return_dict=True, return_labels=True))

        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            learning_rate=1e-2,
            lr_scheduler_type="constant",
            save_steps=2,
            remove_unused_columns=False,
            disable_tqdm=True,
            report_to="none",
            use_cpu=True,
        )
        trainer = Trainer(model, arguments, train_dataset=rows, data_collator=collate, processing_class=processor)
        trainer.train(resume_from_checkpoint=resume or None)
        return model

    whole = train(tmp_path / "whole", 4)
    train(tmp_path / "parts", 2)
    checkpoint = tmp_path / "parts" / "checkpoint-2"
    assert all(name.startswith("connector.") or ".lora_" in name for name in saved_names(checkpoint))
    resumed = train(tmp_path / "parts", 4, resume=True)
    for (name, value), other in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(other, value, msg=name)
    assert Ulip2ForConditionalGeneration.from_pretrained(checkpoint).config.lora_config == LORA
    assert AutoProcessor.from_pretrained(checkpoint).num_query_tokens == world.QUERIES


def test_cards(captioner: tuple[Any, Any], tmp_path: Path) -> None:
    model, processor = captioner
    processor.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "3 of `<point_cloud>`" in card and ModelCard(card).data.pipeline_tag == "any-to-any"
    model.card_facts = CardFacts(license="mit", training="Captions of chairs.")
    try:
        model.save_pretrained(tmp_path)
    finally:
        model.card_facts = None
    card = (tmp_path / "README.md").read_text()
    data = ModelCard(card).data
    assert MARK in card and data.pipeline_tag == "any-to-any" and data.base_model is None
    trained = sum(p.numel() for p in model.connector.parameters())
    for words in ("`language`, a local folder", "`points`, a local folder", f"{trained:,}, those of", "Captions of"):
        assert words in card
    names = model.config.language_model_name_or_path, model.config.point_model_name_or_path
    model.config.language_model_name_or_path, model.config.point_model_name_or_path = "a/language", "b/points/inside"
    try:
        assert model.card("c/model").data.base_model == ["a/language", "b/points"]
        assert 'from_pretrained("c/model"' in str(model.card("c/model"))
    finally:
        model.config.language_model_name_or_path, model.config.point_model_name_or_path = names


def test_push_to_hub(captioner: tuple[Any, Any], uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = captioner
    with pytest.raises(
        ValueError, match="point_model_name_or_path is '/.*', a path of this machine.*include_point_model"
    ):
        model.push_to_hub(NAME)
    with pytest.raises(ValueError, match="language_model_name_or_path is '/.*include_language_model=True"):
        model.push_to_hub(NAME, include_point_model=True)
    assert not uploads.files
    model.push_to_hub(NAME, include_point_model=True, include_language_model=True)
    whole = json.loads(uploads.files["config.json"])
    assert whole["point_model_config"] and whole["text_config"] and model.config.text_config is None
    assert whole["point_model_name_or_path"] is None and whole["language_model_name_or_path"] is None
    assert str(Path(model.config.language_model_name_or_path).parent) not in uploads.files["config.json"].decode()
    uploads.start_with()
    named = {"point_model_name_or_path": "someone/points", "language_model_name_or_path": "someone/language"}
    monkeypatch.setattr(model, "config", copy.deepcopy(model.config))
    model.config.update(named)
    model.push_to_hub(NAME, tags=["mine"])
    assert named.items() <= json.loads(uploads.files["config.json"]).items()
    data = ModelCard(uploads.text).data
    assert data.pipeline_tag == "any-to-any" and {"point-cloud", "qformer", "mine"} <= set(data.tags)
    assert {"model.safetensors", "config.json", "modeling_captioning_ulip2.py"} <= uploads.files.keys()
    assert len(uploads.files["model.safetensors"]) < 2e5 and f'from_pretrained("{NAME}"' in uploads.text
    uploads.start_with()
    processor.push_to_hub(NAME)
    assert {"tokenizer.json", "qformer_tokenizer/tokenizer.json", "processor_config.json"} <= uploads.files.keys()
    for name, content in uploads.files.items():  # and none of this machine's places
        assert b"/tmp/" not in content or name.endswith((".safetensors", "tokenizer.json")), name


# What a stranger runs: the package cannot be imported, the network is off.
STRANGER = """
import numpy as np, torch
from transformers import AutoModelForMultimodalLM, AutoProcessor

cloud = np.load("cloud.npy")
results = {}
for name in sys.argv[2:]:
    model = AutoModelForMultimodalLM.from_pretrained(name, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    content = [{"type": "point_cloud", "point_cloud": cloud}, {"type": "text", "text": "what color is it"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    parts = (model, processor, processor.feature_extractor, model.point_model)
    results[name] = {
        "answer": model.generate(**inputs, min_new_tokens=6, max_new_tokens=6).tolist(),
        "modules": sorted({type(part).__module__.split(".")[0] for part in parts}),
    }
    try:
        content[0] = {"type": "point_cloud", "path": "chair.glb"}
        processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True)
    except ImportError as error:
        results[name]["error"] = str(error)
"""


def test_remote_code(tmp_path: Path) -> None:
    """From a folder and from a hub cache, with an adapter, and with parts beside the checkpoint."""
    import numpy as np

    checkpoint = tmp_path / "checkpoint"
    parts = world.save_parts(checkpoint)
    model, processor = with_adapter(parts)
    model.config.point_model_name_or_path = "./points"
    model.save_pretrained(checkpoint, include_language_model=True)
    processor.save_pretrained(checkpoint)
    cloud = world.cloud(4)
    np.save(tmp_path / "cloud.npy", cloud)
    hub = as_hub_repository(checkpoint, tmp_path / "hub", "captioner")
    found = run_as_stranger(tmp_path, STRANGER, [str(checkpoint), hub])
    inputs = processor.apply_chat_template(
        world.conversation(cloud, prompt="what color is it"),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    )
    want = model.generate(**inputs, min_new_tokens=6, max_new_tokens=6).tolist()
    for result in found.values():
        assert result["modules"] == ["transformers_modules"] and result["answer"] == want
        assert "Reading chair.glb needs the package modeling-ulip2" in result["error"]
