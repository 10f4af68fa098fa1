"""ULIP-2 for the Hugging Face ecosystem: point clouds in the space of a frozen image-text model.

Importing the package makes `AutoConfig`, `AutoModel`, `AutoModelForMultimodalLM`, `AutoFeatureExtractor` and
`AutoProcessor` know its classes, and `pipeline` its tasks, as soon as transformers' Auto classes are there;
`AutoModelForPointCloudClassification` is an Auto class of its own. What stands below is loaded when it is first asked
for, so that `ulip2 --help` answers before torch could be imported.
Everything else (geometry, triplets, towers, training, evaluation, conversion) is imported from its own sub-package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._registration import register_when_ready as _register_when_ready

if TYPE_CHECKING:
    from .auto import AutoModelForPointCloudClassification
    from .card_ulip2 import CardFacts, CardResult
    from .classification_ulip2 import Ulip2ForPointCloudClassification
    from .configuration_captioning_ulip2 import Ulip2CaptioningConfig
    from .configuration_ulip2 import (
        PointBertConfig,
        PointMLPConfig,
        PointNet2Config,
        PointNextConfig,
        PpatConfig,
        Ulip2Config,
        Uni3dConfig,
        register_point_encoder,
    )
    from .embedder import Ulip2Embedder
    from .feature_extraction_ulip2 import Ulip2FeatureExtractor
    from .modeling_captioning_ulip2 import Ulip2CausalLMOutput, Ulip2ForConditionalGeneration
    from .modeling_ulip2 import (
        Ulip2Model,
        Ulip2Output,
        Ulip2PointModel,
        Ulip2PointModelOutput,
        Ulip2PointModelWithProjection,
        contrastive_loss,
    )
    from .pointbert_ulip2 import PointBertModel, PointEncoderOutput
    from .pointmlp_ulip2 import PointMLPModel
    from .pointnet2_ulip2 import PointNet2Model
    from .pointnext_ulip2 import PointNextModel
    from .ppat_ulip2 import PpatModel
    from .processing_captioning_ulip2 import Ulip2CaptioningProcessor
    from .processing_ulip2 import Ulip2Processor
    from .shape_loop import ShapeEmbeddings, ShapeFailure, ShapeRecord
    from .uni3d_ulip2 import Uni3dModel

_HOMES = {
    name: module
    for module, names in {
        "auto": ["AutoModelForPointCloudClassification"],
        "card_ulip2": ["CardFacts", "CardResult"],
        "classification_ulip2": ["Ulip2ForPointCloudClassification"],
        "configuration_captioning_ulip2": ["Ulip2CaptioningConfig"],
        "configuration_ulip2": [
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
        "feature_extraction_ulip2": ["Ulip2FeatureExtractor"],
        "modeling_captioning_ulip2": ["Ulip2CausalLMOutput", "Ulip2ForConditionalGeneration"],
        "modeling_ulip2": [
            "Ulip2Model",
            "Ulip2Output",
            "Ulip2PointModel",
            "Ulip2PointModelOutput",
            "Ulip2PointModelWithProjection",
            "contrastive_loss",
        ],
        "pointbert_ulip2": ["PointBertModel", "PointEncoderOutput"],
        "pointmlp_ulip2": ["PointMLPModel"],
        "pointnet2_ulip2": ["PointNet2Model"],
        "pointnext_ulip2": ["PointNextModel"],
        "ppat_ulip2": ["PpatModel"],
        "processing_captioning_ulip2": ["Ulip2CaptioningProcessor"],
        "processing_ulip2": ["Ulip2Processor"],
        "shape_loop": ["ShapeEmbeddings", "ShapeFailure", "ShapeRecord"],
        "uni3d_ulip2": ["Uni3dModel"],
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
