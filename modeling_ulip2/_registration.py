"""Making transformers know this package's classes, without importing transformers before anybody needs it.

Importing transformers' Auto classes takes seconds, importing this package none. So the registration waits until the
Auto classes are imported, by whomever: a finder in front of Python's own watches the modules of transformers and of
this package, and once the outermost import of such a module is done, everything is there and nothing half made.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from .utils.packages import add_advice

# Without this module nobody can ask transformers for a class of ours.
_AUTO = "transformers.models.auto.configuration_auto"
_OURS = f"{__package__}."
_WATCHED = ("transformers.", _OURS)


def register_when_ready() -> None:
    """Registers everything now if transformers' Auto classes are imported, or else as soon as they are."""
    if not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch(registered=_AUTO in sys.modules))
    if _AUTO in sys.modules:
        register()


def register() -> None:
    """Makes `AutoConfig`, `AutoModel`, … and `pipeline` know the classes and tasks of this package."""
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoModelForMultimodalLM, AutoProcessor

    from .models.auto import AutoModelForPointCloudClassification
    from .models.configuration_captioning_ulip2 import Ulip2CaptioningConfig
    from .models.configuration_ulip2 import Ulip2Config
    from .models.feature_extraction_ulip2 import Ulip2FeatureExtractor
    from .models.modeling_captioning_ulip2 import Ulip2ForConditionalGeneration
    from .models.modeling_classification_ulip2 import Ulip2ForPointCloudClassification
    from .models.modeling_point_ulip2 import POINT_MODELS
    from .models.modeling_ulip2 import Ulip2Model
    from .models.processing_captioning_ulip2 import Ulip2CaptioningProcessor
    from .models.processing_ulip2 import Ulip2Processor
    from .pipelines import register as register_pipelines

    for model_class in POINT_MODELS:
        AutoConfig.register(model_class.config_class.model_type, model_class.config_class)
        AutoModel.register(model_class.config_class, model_class)
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
    register_pipelines()


class _Watch(MetaPathFinder):
    """Finds nothing itself; sees imports of `_WATCHED` begin and end, and registers when all of them have ended.

    Where a module of this package cannot be imported without a package of an extra, the error then says which.
    """

    def __init__(self, registered: bool = False) -> None:
        self.registered = registered
        self._imports = threading.local()  # how many are under way in this thread, one within another
        self._lock = threading.Lock()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        ours = fullname.startswith(_OURS)
        if not ours and (self.registered or not fullname.startswith(_WATCHED)):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                break
        else:
            return None
        execute = getattr(spec.loader, "exec_module", None)
        if execute is None:
            return spec

        def watched(module: ModuleType) -> None:
            self._imports.depth = getattr(self._imports, "depth", 0) + 1
            try:
                execute(module)
            except ImportError as error:
                if ours:
                    add_advice(error)
                raise
            finally:
                self._imports.depth -= 1
            self._end()

        spec.loader.exec_module = watched  # type: ignore[union-attr, method-assign]
        return spec

    def _end(self) -> None:
        if self._imports.depth or self.registered or _AUTO not in sys.modules:
            return
        with self._lock:
            if self.registered:
                return
            self.registered = True
        register()
