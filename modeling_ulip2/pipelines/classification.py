"""The pipeline `point-cloud-classification`: 3D shapes in, the classes of a fine-tuned model out.

from transformers import pipeline
import modeling_ulip2

classify = pipeline("point-cloud-classification", model="FOLDER")
classify("chair.glb", top_k=2)
# [{"score": 0.97, "label": "chair"}, {"score": 0.02, "label": "stool"}]
"""

from __future__ import annotations

from typing import Any

from modeling_ulip2.data.candidate_labels import check_top_k, ranked
from modeling_ulip2.pipelines.base import PointCloudPipeline, reading_options, with_warnings

CLASSIFICATION = "point-cloud-classification"


class PointCloudClassificationPipeline(PointCloudPipeline):
    """3D shapes -> the classes that a `Ulip2ForPointCloudClassification` was fine-tuned on, ranked.

    `pipeline("point-cloud-classification", model=FOLDER)(shapes)` takes shapes as the pipeline
    `point-cloud-feature-extraction` does and returns for each a list of `{"score", "label"}`, best first. Scores are
    the softmax of the logits over all classes.

    Call arguments:
        top_k: how many labels to return; default: 5.
        root, up_axis: see `PointCloudPipeline`.
        batch_size: clouds per forward pass.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not hasattr(self.model, "num_labels"):
            raise ValueError(
                f"{self.task} needs a Ulip2ForPointCloudClassification, not a {type(self.model).__name__}."
            )

    def _sanitize_parameters(
        self, top_k: int | None = None, root: Any = None, up_axis: str | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        check_top_k(top_k)
        return reading_options(root, up_axis), {}, {} if top_k is None else {"top_k": top_k}

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return {"logits": self._encode(inputs["cloud"], "logits"), "warnings": inputs["warnings"]}  # (B, num_labels)

    def postprocess(self, outputs: dict[str, Any], top_k: int = 5) -> list[dict[str, Any]]:
        names = self.model.config.id2label
        result = ranked(outputs["logits"][0], [names[index] for index in range(len(names))], top_k)
        return with_warnings(result, outputs["warnings"])
