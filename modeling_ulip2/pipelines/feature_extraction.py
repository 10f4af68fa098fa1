"""The pipeline `point-cloud-feature-extraction`: 3D shapes in, vectors out.

from transformers import pipeline
import modeling_ulip2

embed = pipeline("point-cloud-feature-extraction", model="FOLDER")
embed("chair.glb", return_tensors=True)
# a tensor (D,) of unit length, beside the texts and images of the model's tower
"""

from __future__ import annotations

from typing import Any

from modeling_ulip2.pipelines.base import PointCloudPipeline, reading_options

FEATURE_EXTRACTION = "point-cloud-feature-extraction"


class PointCloudFeatureExtractionPipeline(PointCloudPipeline):
    """3D shapes -> vectors.

    `pipeline("point-cloud-feature-extraction", model=FOLDER)(shapes)` takes a path of a mesh or a point file, an array
    (N, 3) or (N, 6) of xyz and rgb, a mapping with `xyz` and `rgb`, or a batch of these, and returns for each shape a
    list of numbers, or a tensor with `return_tensors=True`.

    Call arguments:
        features: "embeds", of unit length in the space of the image-text model (default); "pooled", the encoder's own
            vector (default of a model without projection); "tokens", one vector for each patch.
        return_tensors: a float32 tensor for each shape, (D,) or (G, C), instead of nested lists.
        return_warnings: `{"features", "warnings"}` for each shape instead of the features alone.
        root, up_axis: see `PointCloudPipeline`.
        batch_size: clouds per forward pass.
    """

    def _sanitize_parameters(
        self,
        features: str | None = None,
        return_tensors: bool | None = None,
        return_warnings: bool | None = None,
        root: Any = None,
        up_axis: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        forward = {} if features is None else {"features": features}
        told = {"return_tensors": return_tensors, "return_warnings": return_warnings}
        return (
            reading_options(root, up_axis),
            forward,
            {name: value for name, value in told.items() if value is not None},
        )

    def _forward(self, inputs: dict[str, Any], features: str | None = None) -> dict[str, Any]:
        return {"features": self._encode(inputs["cloud"], features), "warnings": inputs["warnings"]}

    def postprocess(self, outputs: dict[str, Any], return_tensors: bool = False, return_warnings: bool = False) -> Any:
        values = outputs["features"][0]  # (D,) or (G, C)
        values = values if return_tensors else values.tolist()
        return {"features": values, "warnings": outputs["warnings"]} if return_warnings else values
