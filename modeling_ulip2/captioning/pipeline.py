"""The pipeline `point-cloud-to-text`: 3D shapes in, sentences out.

    from transformers import pipeline
    import modeling_ulip2

    caption = pipeline("point-cloud-to-text", model="FOLDER")
    caption("chair.glb")
    # [{"generated_text": "a wooden chair with a red cushion"}]

Importing the package registers the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForMultimodalLM
from transformers.pipelines import PIPELINE_REGISTRY

from modeling_ulip2.captioning_card_ulip2 import PROMPT
from modeling_ulip2.pipelines import PointCloudPipeline

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
        batch_size: shapes a forward pass.
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
        return {}, forward | ({"generate_kwargs": settings} if settings else {}), {}

    def _forward(
        self,
        inputs: dict[str, Any],
        prompt: str = PROMPT,
        chat_template: str | None = None,
        generate_kwargs: Mapping[str, Any] | None = None,
        streamer: Any = None,
    ) -> dict[str, Any]:
        clouds = inputs["cloud"] if isinstance(inputs["cloud"], list) else [inputs["cloud"]]
        content = [{"type": "point_cloud"}, {"type": "text", "text": prompt}]
        processor: Any = self.processor
        batch = processor.apply_chat_template(
            [[{"role": "user", "content": content}]] * len(clouds),
            chat_template=chat_template,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        ).to(self.device)
        model: Any = self.model
        settings: dict[str, Any] = dict(generate_kwargs or {})
        if model.generation_config.max_new_tokens is None:
            settings.setdefault("max_new_tokens", MAX_NEW_TOKENS)
        if streamer is not None:
            settings["streamer"] = streamer
        ids = model.generate(**batch, point_features=self._features(clouds), **settings)  # (B * sequences, L)
        return {"sequences": ids.unflatten(0, (len(clouds), -1))}

    def _features(self, clouds: list[np.ndarray]) -> torch.Tensor:
        """What the connector reads of clouds (N, C) of any sizes."""
        model: Any = self.model
        points = [torch.from_numpy(cloud).to(self.device) for cloud in clouds]
        if len({one.shape for one in points}) == 1:
            return model.get_point_features(torch.stack(points))
        return torch.cat([model.get_point_features(one[None]) for one in points])

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, str]]:
        processor: Any = self.processor
        texts = processor.batch_decode(outputs["sequences"][0], skip_special_tokens=True)
        return [{"generated_text": text.strip()} for text in texts]


def register() -> None:
    """Makes `transformers.pipeline` know the task; may be called again."""
    if POINT_CLOUD_TO_TEXT not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            POINT_CLOUD_TO_TEXT, PointCloudToTextPipeline, pt_model=AutoModelForMultimodalLM, type="multimodal"
        )
        # by this mark `save_pretrained` would ship the file, which does not stand alone
        del PointCloudToTextPipeline._registered_impl
