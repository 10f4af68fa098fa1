"""transformers pipelines for 3D shapes: files, arrays or batches of them in; vectors, labels or sentences out.

Importing `modeling_ulip2` registers the tasks, so that `transformers.pipeline(TASK, model=...)` knows them. Nothing is
imported here before it is asked for.
"""


def register() -> None:
    """Makes `transformers.pipeline` know all tasks of this package; may be called again."""
    from transformers import AutoModel, AutoModelForMultimodalLM

    from modeling_ulip2.models.auto import AutoModelForPointCloudClassification
    from modeling_ulip2.pipelines.base import register_task
    from modeling_ulip2.pipelines.classification import CLASSIFICATION, PointCloudClassificationPipeline
    from modeling_ulip2.pipelines.feature_extraction import FEATURE_EXTRACTION, PointCloudFeatureExtractionPipeline
    from modeling_ulip2.pipelines.point_cloud_to_text import POINT_CLOUD_TO_TEXT, PointCloudToTextPipeline
    from modeling_ulip2.pipelines.scene_understanding import SCENE_UNDERSTANDING, SceneUnderstandingPipeline
    from modeling_ulip2.pipelines.zero_shot_classification import (
        ZERO_SHOT_CLASSIFICATION,
        ZeroShotPointCloudClassificationPipeline,
    )

    register_task(FEATURE_EXTRACTION, PointCloudFeatureExtractionPipeline, AutoModel)
    register_task(ZERO_SHOT_CLASSIFICATION, ZeroShotPointCloudClassificationPipeline, AutoModel)
    register_task(CLASSIFICATION, PointCloudClassificationPipeline, AutoModelForPointCloudClassification)
    register_task(POINT_CLOUD_TO_TEXT, PointCloudToTextPipeline, AutoModelForMultimodalLM)
    register_task(SCENE_UNDERSTANDING, SceneUnderstandingPipeline, AutoModel)
