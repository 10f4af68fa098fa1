"""The pipeline `point-cloud-to-text`: 3D shapes in, sentences out.

from transformers import pipeline
import modeling_ulip2

caption = pipeline("point-cloud-to-text", model="FOLDER")
caption("chair.glb")
# [{"generated_text": "a wooden chair with a red cushion"}]
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForMultimodalLM, AutoProcessor, pipeline

from modeling_ulip2.models.captioning_card import PROMPT
from modeling_ulip2.models.configuration_captioning_ulip2 import Ulip2CaptioningConfig
from modeling_ulip2.pipelines.base import PointCloudPipeline, reading_options, with_warnings
from modeling_ulip2.utils.places import find_model

POINT_CLOUD_TO_TEXT = "point-cloud-to-text"
MAX_NEW_TOKENS = 80  # the longest captions of the paper


class PointCloudToTextPipeline(PointCloudPipeline):
    """3D shapes -> sentences.

    `pipeline("point-cloud-to-text", model=FOLDER)(shapes)` takes a path of a mesh or a point file, an array (N, 3) or
    (N, 6) of xyz and rgb, a mapping with `xyz` and `rgb`, or a batch of these, and returns for each shape a list of
    `{"generated_text"}`, one or `num_return_sequences` of them.

    Call arguments:
        prompt: what to say about every shape, by default the paper's "describe the 3d model.".
        chat_template: see `Ulip2CaptioningProcessor.apply_chat_template`; default: the model's own.
        generate_kwargs: a dictionary for `generate`, such as `num_beams` or `do_sample`.
        max_new_tokens: of an answer; default: the model's generation_config's, or else 80.
        streamer: of transformers, for one shape at a time; gets tokens as they come.
        root, up_axis: see `PointCloudPipeline`.
        batch_size: shapes per forward pass.
    """

    _load_processor = True

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not hasattr(self.processor, "point_token"):
            raise ValueError(f"{self.task} needs processor=..., a Ulip2CaptioningProcessor.")

    def _sanitize_parameters(
        self,
        prompt: str | None = None,
        chat_template: str | None = None,
        generate_kwargs: Mapping[str, Any] | None = None,
        max_new_tokens: int | None = None,
        streamer: Any = None,
        root: Any = None,
        up_axis: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if prompt is not None and (not isinstance(prompt, str) or not prompt.strip()):
            raise ValueError(f"prompt is empty or no string: {prompt!r}.")
        given = {"prompt": prompt, "chat_template": chat_template, "streamer": streamer}
        forward = {name: value for name, value in given.items() if value is not None}
        settings = dict(generate_kwargs or {})
        if max_new_tokens is not None:
            if "max_new_tokens" in settings:
                raise ValueError("max_new_tokens is given twice, once within generate_kwargs.")
            settings["max_new_tokens"] = max_new_tokens
        forward |= {"generate_kwargs": settings} if settings else {}
        return reading_options(root, up_axis), forward, {}

    def _forward(self, inputs: dict[str, Any], **parameters: Any) -> dict[str, Any]:
        features = self._encode(inputs["cloud"], "connector")  # (B, G, C)
        return {"sequences": self._generate(features, **parameters), "warnings": inputs["warnings"]}

    def _generate(
        self,
        features: torch.Tensor,
        prompt: str = PROMPT,
        chat_template: str | None = None,
        generate_kwargs: Mapping[str, Any] | None = None,
        streamer: Any = None,
    ) -> torch.Tensor:
        """Answers (B, sequences, L) about clouds of which the connector reads `features` (B, G, C)."""
        model: Any = self.model
        content = [{"type": "point_cloud"}, {"type": "text", "text": prompt}]
        processor: Any = self.processor
        batch = processor.apply_chat_template(
            [[{"role": "user", "content": content}]] * len(features),
            chat_template=chat_template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        ).to(self.device)
        settings: dict[str, Any] = dict(generate_kwargs or {})
        if model.generation_config.max_new_tokens is None:
            settings.setdefault("max_new_tokens", MAX_NEW_TOKENS)
        if streamer is not None:
            settings["streamer"] = streamer
        features = features.to(self.device, model.dtype)
        return model.generate(**batch, point_features=features, **settings).unflatten(0, (len(features), -1))

    def answer(self, features: torch.Tensor, **parameters: Any) -> list[dict[str, Any]]:
        """What is said about a shape that the embedder has read.

        Args:
            features: (G, C), what the connector reads of it.
            parameters: those of a call that are not about reading.
        """
        _, forward, _ = self._sanitize_parameters(**parameters)
        with torch.no_grad():
            return self.postprocess({"sequences": self._generate(features[None], **forward), "warnings": []})

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, Any]]:
        processor: Any = self.processor
        texts = processor.batch_decode(outputs["sequences"][0], skip_special_tokens=True)
        return with_warnings([{"generated_text": text.strip()} for text in texts], outputs["warnings"])


def load_captioner(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | None = None,
    **places: str | None,
) -> PointCloudToTextPipeline:
    """The pipeline of a captioning model.

    Args:
        name_or_path: folder or hub name.
        revision, token, cache_dir: of a hub name, as in `from_pretrained`.
        places: `language_model_name_or_path` and `point_model_name_or_path`, where the model's own have moved.

    Raises:
        FileNotFoundError: there is no such folder, nor such a model on the hub.
        ValueError: it is no captioner; the message says what it is.
    """
    name = os.fspath(name_or_path)
    hub: dict[str, Any] = {"revision": revision, "token": token, "cache_dir": cache_dir}
    hub = {key: value for key, value in hub.items() if value is not None}
    place = find_model(name, **hub)
    config = AutoConfig.from_pretrained(place, **hub)
    if not isinstance(config, Ulip2CaptioningConfig):
        what = (config.architectures or [type(config).__name__])[0]
        raise ValueError(
            f"{name} holds a {what}, which writes no text: a captioning model (Ulip2ForConditionalGeneration) is "
            "needed. `ulip2 classify` and `ulip2 embed` work with a Ulip2Model."
        )
    given = {key: value for key, value in places.items() if value is not None}
    model = AutoModelForMultimodalLM.from_pretrained(place, **given, **hub)
    processor: Any = AutoProcessor.from_pretrained(place, **hub)
    make_pipeline: Any = pipeline  # its overloads know the tasks of transformers only
    return make_pipeline(
        POINT_CLOUD_TO_TEXT,
        model=model,
        processor=processor,
        feature_extractor=processor.feature_extractor,
        device=device,
    )
