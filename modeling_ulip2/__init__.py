"""ULIP-2 for the Hugging Face ecosystem: point clouds in the space of a frozen image-text model.

Importing the package makes `AutoConfig`, `AutoModel`, `AutoModelForMultimodalLM`, `AutoFeatureExtractor` and
`AutoProcessor` know its classes, and `pipeline` its tasks; `AutoModelForPointCloudClassification` is an Auto class of
its own.
Everything else (geometry, triplets, towers, training, evaluation, conversion) is imported from its own sub-package.
"""

from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForMultimodalLM, AutoProcessor

from .auto import AutoModelForPointCloudClassification
from .captioning.pipeline import register as _register_captioning
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
from .feature_extraction_ulip2 import Ulip2FeatureExtractor
from .modeling_captioning_ulip2 import Ulip2CausalLMOutput, Ulip2ForConditionalGeneration
from .modeling_ulip2 import (
    POINT_MODELS,
    Ulip2Model,
    Ulip2Output,
    Ulip2PointModel,
    Ulip2PointModelOutput,
    Ulip2PointModelWithProjection,
    contrastive_loss,
)
from .pipelines import register as _register_pipelines
from .pointbert_ulip2 import PointBertModel, PointEncoderOutput
from .pointmlp_ulip2 import PointMLPModel
from .pointnet2_ulip2 import PointNet2Model
from .pointnext_ulip2 import PointNextModel
from .ppat_ulip2 import PpatModel
from .processing_captioning_ulip2 import Ulip2CaptioningProcessor
from .processing_ulip2 import Ulip2Processor
from .towers import register as _register_towers
from .uni3d_ulip2 import Uni3dModel

for _model_class in POINT_MODELS:
    AutoConfig.register(_model_class.config_class.model_type, _model_class.config_class)
    AutoModel.register(_model_class.config_class, _model_class)
AutoConfig.register(Ulip2Config.model_type, Ulip2Config)
# of several classes AutoModel takes the one that saved the folder, or else the first
AutoModel.register(Ulip2Config, (Ulip2Model, Ulip2ForPointCloudClassification))
AutoModelForPointCloudClassification.register(Ulip2Config, Ulip2ForPointCloudClassification)
AutoFeatureExtractor.register(Ulip2Config, Ulip2FeatureExtractor)
AutoProcessor.register(Ulip2Config, Ulip2Processor)
AutoConfig.register(Ulip2CaptioningConfig.model_type, Ulip2CaptioningConfig)
AutoModelForMultimodalLM.register(Ulip2CaptioningConfig, Ulip2ForConditionalGeneration)
AutoFeatureExtractor.register(Ulip2CaptioningConfig, Ulip2FeatureExtractor)
AutoProcessor.register(Ulip2CaptioningConfig, Ulip2CaptioningProcessor)
_register_towers()
_register_pipelines()
_register_captioning()

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
    "Ulip2CaptioningConfig",
    "Ulip2CaptioningProcessor",
    "Ulip2CausalLMOutput",
    "Ulip2Config",
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
