"""ULIP-2 for the Hugging Face ecosystem: point clouds in the space of a frozen image-text model.

Importing the package makes `AutoConfig`, `AutoModel`, `AutoModelForMultimodalLM`, `AutoFeatureExtractor` and
`AutoProcessor` know its classes, and `pipeline` its tasks, as soon as transformers' Auto classes are there;
`AutoModelForPointCloudClassification` is an Auto class of its own. What stands below is loaded when it is first asked
for, so that `ulip2 --help` answers before torch could be imported.
Everything else (geometry, data, towers, training, evaluation, search,
building, conversion) is imported from its own sub-package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._registration import register_when_ready as _register_when_ready

if TYPE_CHECKING:
    from .embedder import Ulip2Embedder
    from .embedding.records import ShapeEmbeddings, ShapeFailure, ShapeRecord
    from .models.auto import AutoModelForPointCloudClassification
    from .models.configuration_captioning_ulip2 import Ulip2CaptioningConfig
    from .models.configuration_ulip2 import (
        PointBertConfig,
        PointMLPConfig,
        PointNet2Config,
        PointNextConfig,
        PpatConfig,
        Ulip2Config,
        Uni3dConfig,
        register_point_encoder,
    )
    from .models.feature_extraction_ulip2 import Ulip2FeatureExtractor
    from .models.model_card import CardFacts, CardResult
    from .models.modeling_captioning_ulip2 import Ulip2CausalLMOutput, Ulip2ForConditionalGeneration
    from .models.modeling_classification_ulip2 import Ulip2ForPointCloudClassification
    from .models.modeling_point_ulip2 import (
        Ulip2PointModel,
        Ulip2PointModelOutput,
        Ulip2PointModelWithProjection,
    )
    from .models.modeling_pointbert import PointBertModel
    from .models.modeling_pointmlp import PointMLPModel
    from .models.modeling_pointnet2 import PointNet2Model
    from .models.modeling_pointnext import PointNextModel
    from .models.modeling_ppat import PpatModel
    from .models.modeling_ulip2 import (
        Ulip2Model,
        Ulip2Output,
        contrastive_loss,
    )
    from .models.modeling_uni3d import Uni3dModel
    from .models.point_encoder import PointEncoderOutput
    from .models.processing_captioning_ulip2 import Ulip2CaptioningProcessor
    from .models.processing_ulip2 import Ulip2Processor

_HOMES = {
    name: module
    for module, names in {
        "models.auto": ["AutoModelForPointCloudClassification"],
        "models.model_card": ["CardFacts", "CardResult"],
        "models.modeling_classification_ulip2": ["Ulip2ForPointCloudClassification"],
        "models.configuration_captioning_ulip2": ["Ulip2CaptioningConfig"],
        "models.configuration_ulip2": [
            "PointBertConfig",
            "PointMLPConfig",
            "PointNet2Config",
            "PointNextConfig",
            "PpatConfig",
            "Ulip2Config",
            "Uni3dConfig",
            "register_point_encoder",
        ],
        "embedder": ["Ulip2Embedder"],
        "models.feature_extraction_ulip2": ["Ulip2FeatureExtractor"],
        "models.modeling_captioning_ulip2": ["Ulip2CausalLMOutput", "Ulip2ForConditionalGeneration"],
        "models.modeling_point_ulip2": [
            "Ulip2PointModel",
            "Ulip2PointModelOutput",
            "Ulip2PointModelWithProjection",
        ],
        "models.modeling_ulip2": [
            "Ulip2Model",
            "Ulip2Output",
            "contrastive_loss",
        ],
        "models.modeling_pointbert": ["PointBertModel"],
        "models.modeling_pointmlp": ["PointMLPModel"],
        "models.modeling_pointnet2": ["PointNet2Model"],
        "models.modeling_pointnext": ["PointNextModel"],
        "models.modeling_ppat": ["PpatModel"],
        "models.point_encoder": ["PointEncoderOutput"],
        "models.processing_captioning_ulip2": ["Ulip2CaptioningProcessor"],
        "models.processing_ulip2": ["Ulip2Processor"],
        "embedding.records": ["ShapeEmbeddings", "ShapeFailure", "ShapeRecord"],
        "models.modeling_uni3d": ["Uni3dModel"],
    }.items()
    for name in names
}

__all__ = [
    "AutoModelForPointCloudClassification",
    "CardFacts",
    "CardResult",
    "PointBertConfig",
    "PointBertModel",
    "PointEncoderOutput",
    "PointMLPConfig",
    "PointMLPModel",
    "PointNet2Config",
    "PointNet2Model",
    "PointNextConfig",
    "PointNextModel",
    "PpatConfig",
    "PpatModel",
    "ShapeEmbeddings",
    "ShapeFailure",
    "ShapeRecord",
    "Ulip2CaptioningConfig",
    "Ulip2CaptioningProcessor",
    "Ulip2CausalLMOutput",
    "Ulip2Config",
    "Ulip2Embedder",
    "Ulip2FeatureExtractor",
    "Ulip2ForConditionalGeneration",
    "Ulip2ForPointCloudClassification",
    "Ulip2Model",
    "Ulip2Output",
    "Ulip2PointModel",
    "Ulip2PointModelOutput",
    "Ulip2PointModelWithProjection",
    "Ulip2Processor",
    "Uni3dConfig",
    "Uni3dModel",
    "contrastive_loss",
    "register_point_encoder",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("modeling-ulip2")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


_register_when_ready()
