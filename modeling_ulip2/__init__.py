"""ULIP-2 for the Hugging Face ecosystem: point clouds in the space of a frozen image-text model.

Importing the package makes `AutoConfig`, `AutoModel`, `AutoFeatureExtractor` and `AutoProcessor` know its classes.
Everything else (geometry, triplets, towers, training, evaluation, conversion) is imported from its own sub-package.
"""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor

from .configuration_ulip2 import PointBertConfig, Ulip2Config, register_point_encoder
from .feature_extraction_ulip2 import Ulip2FeatureExtractor
from .modeling_ulip2 import (
    Ulip2Model,
    Ulip2Output,
    Ulip2PointModel,
    Ulip2PointModelOutput,
    Ulip2PointModelWithProjection,
    contrastive_loss,
)
from .pointbert_ulip2 import PointBertModel, PointEncoderOutput
from .processing_ulip2 import Ulip2Processor
from .towers import register as _register_towers


for _config_class, _model_class in ((PointBertConfig, PointBertModel), (Ulip2Config, Ulip2Model)):
    AutoConfig.register(_config_class.model_type, _config_class)
    AutoModel.register(_config_class, _model_class)
AutoFeatureExtractor.register(Ulip2Config, Ulip2FeatureExtractor)
AutoProcessor.register(Ulip2Config, Ulip2Processor)
_register_towers()

__all__ = [
    "PointBertConfig",
    "PointBertModel",
    "PointEncoderOutput",
    "Ulip2Config",
    "Ulip2FeatureExtractor",
    "Ulip2Model",
    "Ulip2Output",
    "Ulip2PointModel",
    "Ulip2PointModelOutput",
    "Ulip2PointModelWithProjection",
    "Ulip2Processor",
    "contrastive_loss",
    "register_point_encoder",
]
