"""The cards of a captioning model and its processor."""

from __future__ import annotations

from typing import Any

from .model_card import Card, ModelCardMixin, ProcessorCardMixin, reference

# the hub's name for models that read several modalities, as transformers' AutoModelForMultimodalLM has it
_TASK = "any-to-any"
# X-InstructBLIP's instruction, with which ULIP-2's captions were made.
PROMPT = "describe the 3d model."


class CaptioningCardMixin(ModelCardMixin):
    """As `ModelCardMixin`, for `Ulip2ForConditionalGeneration`."""

    def _card(self, name: str) -> Card:
        config: Any = self.config
        encoder, encoder_said = reference(config.point_model_name_or_path, config.point_model_config)
        language, language_said = reference(config.language_model_name_or_path, config.text_config)
        connector = f"`{config.connector}`, {config.num_query_tokens} positions per cloud"
        if config.connector == "mlp":
            connector += f", `{config.compression}`"
        frozen = self._keys_to_ignore_on_save or ()
        trained = sum(parameter.numel() for key, parameter in self.named_parameters() if key not in frozen)
        rows = [
            ("point encoder", encoder_said),
            ("language model", language_said),
            ("connector", f"{connector}, reads `{config.point_feature_type}` of {config.point_hidden_size} channels"),
            ("adapter", "none" if config.lora_config is None else f"LoRA, {_settings(config.lora_config)}"),
            ("parameters", f"{trained:,}, those of the frozen models not counted"),
            *self._known_rows(),
        ]
        introduction = (
            f"Point clouds put into words: `{type(self).__name__}` of modeling-ulip2 (ULIP-2, arXiv 2305.08275). A "
            "connector was trained between a point encoder and a language model, which stay as they were."
        )
        models = [model for model in (language, encoder) if model is not None]
        return Card(
            type(self).__name__, introduction, caption_usage(name), rows, [config.connector], models or None, _TASK
        )


class CaptioningProcessorCardMixin(ProcessorCardMixin):
    """As `ProcessorCardMixin`, for `Ulip2CaptioningProcessor`."""

    def _card(self, name: str) -> Card:
        card = super()._card(name)
        own: Any = self
        card.rows.append(("positions per cloud", f"{own.num_query_tokens} of `{own.point_token}`"))
        card.usage, card.pipeline_tag = caption_usage(name), _TASK
        return card


def caption_usage(name: str) -> str:
    """How to caption a cloud with the model in the folder or repository `name`."""
    return (
        "```python\nfrom transformers import AutoModelForMultimodalLM, AutoProcessor\n\n"
        f'model = AutoModelForMultimodalLM.from_pretrained("{name}", trust_remote_code=True)\n'
        f'processor = AutoProcessor.from_pretrained("{name}", trust_remote_code=True)\n'
        'content = [{"type": "point_cloud", "point_cloud": cloud},  # (N, 3) or (N, 6), y up, rgb in [0, 1]\n'
        f'           {{"type": "text", "text": "{PROMPT}"}}]\n'
        "inputs = processor.apply_chat_template(\n"
        '    [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True, return_dict=True\n'
        ")\n"
        "processor.batch_decode(model.generate(**inputs, max_new_tokens=80), skip_special_tokens=True)\n```\n\n"
        "After `import modeling_ulip2` no remote code is needed, and clouds may be paths of files."
    )


def _settings(lora: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in lora.items())


__all__ = ["CaptioningCardMixin", "CaptioningProcessorCardMixin", "caption_usage"]
