"""Options of `ulip2 finetune captioning` beside those of the training itself (`CaptioningArguments`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.utils.places import OWN_DEFAULT, default_feature_cache

DESCRIPTION = """Teach a language model to describe shapes that a frozen ULIP-2 encoder sees.

Stage 1 trains the connector between the two. Stage 2 starts from stage 1's folder (--model_name_or_path) and adds a
LoRA adapter to the language model (--lora_r); a new connector with --lora_r trains together with the adapter. With
--align_epochs a new connector first learns the language model's words, without running it.

Texts are captions (--texts of `ulip2 describe` or dataset_scripts/cap3d.py; without it, those of the triplets) or
conversations (dataset_scripts/pointllm.py). The encoder sees every shape once, before the training (--use_features),
or in every step, where its clouds are augmented (--augment). The same command goes on after a stop.
"""


@dataclass
class CaptionerModelArguments:
    """The connector; sizes that are not given are those of the paper."""

    _argument_group_name = "model"

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Captioning model to start from (stage 2); default: a new connector."}
    )
    point_model: str | None = field(
        default=None, metadata={"help": f"ULIP-2 encoder of a new connector: a folder or hub name; {OWN_DEFAULT}."}
    )
    language_model: str | None = field(default=None, metadata={"help": "Causal LM: a folder, hub name or GGUF file."})
    connector: str = field(default="qformer", metadata={"help": "qformer or mlp.", "choices": ["qformer", "mlp"]})
    point_feature_type: str = field(
        default="tokens", metadata={"help": "What it reads: tokens, pooled, or embeds (the paper's one vector)."}
    )
    num_query_tokens: int = field(default=32, metadata={"help": "Positions of a cloud in the text."})
    instruction_aware: bool = field(default=True, metadata={"help": "The Q-Former reads the instruction, too."})
    qformer_from: str | None = field(
        default=None, metadata={"help": "BLIP-2 or InstructBLIP checkpoint whose Q-Former the connector starts from."}
    )
    qformer_tokenizer: str | None = field(
        default=None, metadata={"help": "BERT's tokenizer, for a Q-Former that reads instructions."}
    )
    qformer_hidden_size: int | None = field(default=None, metadata={"help": "Width of the Q-Former."})
    qformer_num_hidden_layers: int | None = field(default=None, metadata={"help": "Depth of the Q-Former."})
    qformer_num_attention_heads: int | None = field(default=None, metadata={"help": "Heads of the Q-Former."})
    qformer_intermediate_size: int | None = field(default=None, metadata={"help": "Inner width of the Q-Former."})
    compression: str = field(default="pool", metadata={"help": "How the mlp makes few tokens: pool or resample."})
    connector_hidden_size: int = field(default=1024, metadata={"help": "Width of the mlp."})
    chat_template: str | None = field(
        default=None, metadata={"help": "Jinja template of conversations, or plain; default: the language model's."}
    )
    align_epochs: int = field(
        default=0, metadata={"help": "Passes in which a new connector learns the language model's words, beforehand."}
    )
    align_steps: int = field(
        default=0, metadata={"help": "The same in steps, rounded up to whole passes; instead of align_epochs."}
    )
    lora_r: int | None = field(default=None, metadata={"help": "Rank of a LoRA adapter (stage 2); default: none."})
    lora_alpha: float | None = field(default=None, metadata={"help": "Scale of the adapter; default: twice the rank."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout before the adapter."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"], metadata={"help": "Layers that the adapter changes."}
    )

    def connector_config(self) -> dict[str, Any]:
        """Fields of `Ulip2CaptioningConfig` that describe a new connector."""
        names = "connector point_feature_type num_query_tokens instruction_aware compression connector_hidden_size"
        config = {name: getattr(self, name) for name in names.split()}
        qformer = {
            name.removeprefix("qformer_"): value
            for name, value in asdict(self).items()
            if name.startswith("qformer_") and name not in ("qformer_from", "qformer_tokenizer") and value is not None
        }
        return config | ({"qformer_config": qformer} if qformer else {})

    def lora_config(self) -> dict[str, Any] | None:
        """Arguments of peft's `LoraConfig`, or None without an adapter."""
        if self.lora_r is None:
            return None
        alpha = 2 * self.lora_r if self.lora_alpha is None else self.lora_alpha
        modules = list(self.lora_target_modules)
        return {
            "r": self.lora_r,
            "lora_alpha": alpha,
            "lora_dropout": self.lora_dropout,
            "target_modules": modules,
        }


@dataclass
class CaptionerDataArguments:
    """What is learned from, and what is measured on."""

    _argument_group_name = "data"

    dataset: str = field(metadata={"help": "Shapes: a triplets dataset, or a folder of texts that holds clouds."})
    texts: str | None = field(
        default=None, metadata={"help": "Captions or conversations by id; default: the captions of the triplets."}
    )
    split_file: str | None = field(
        default=None, metadata={"help": '{"train": [ids], "test": [ids]} as JSON; default: train on all shapes.'}
    )
    top_k: int | None = field(
        default=None, metadata={"help": "Captions of a shape (of each view of a triplet) to draw from; default: all."}
    )
    prompt: str | None = field(
        default=None, metadata={"help": "What the user says before a caption (published: describe the 3d model.)."}
    )
    max_shapes: int | None = field(default=None, metadata={"help": "Train on the first so many shapes only."})
    use_features: bool = field(default=True, metadata={"help": "Let the encoder see every shape once, beforehand."})
    feature_cache: str = field(
        default_factory=default_feature_cache, metadata={"help": "Where its features are kept."}
    )
    augment: bool = field(default=False, metadata={"help": "Augment the clouds; needs --use_features false."})


OPTIONS = (CaptionerModelArguments, CaptionerDataArguments, PointAugmentation, HubArguments)
