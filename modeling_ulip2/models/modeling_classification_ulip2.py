"""Classification of point clouds: a point encoder and the head with which it was published, to be fine-tuned."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple

from .configuration_ulip2 import Ulip2Config
from .model_card import Card, point_usage
from .modeling_point_ulip2 import Ulip2PreTrainedModel, without_tower
from .point_layers import hidden_layers
from .transformer_layers import OutputOptions

# The hub has no task for the classification of point clouds.
_TASK = "other"
SINGLE_LABEL = "single_label_classification"


class PointClassificationHead(nn.Sequential):
    """Pooled features (B, D) -> logits (B, num_labels).

    Hidden layers of `config.hidden_classifier_dims`, each followed by BatchNorm (if `classifier_norm`), ReLU and
    dropout, then a linear layer. By default

    - with Point-BERT, one layer of 256: `PointTransformer.cls_head_finetune` of Point-BERT's code (arXiv 2111.14819);
    - with PointNeXt, none: the encoder ends in the two hidden layers of the `ClsHead` of PointNeXt's code (arXiv
      2206.04670), and with the layer here PointNeXt-S has its published 1.367 M parameters at 15 classes.
    """

    def __init__(self, config: Ulip2Config):
        super().__init__()
        point_config: Any = config.point_config
        widths = [point_config.output_dim, *config.hidden_classifier_dims]
        for layer in hidden_layers(widths, config.classifier_dropout, norm=config.classifier_norm):
            self.extend(layer)
        num_labels: Any = config.num_labels
        self.append(nn.Linear(widths[-1], num_labels))


class Ulip2ForPointCloudClassification(Ulip2PreTrainedModel):
    """A point encoder and a classification head, from scratch or from any ULIP-2 checkpoint.

        model = Ulip2ForPointCloudClassification.from_pretrained(FOLDER, num_labels=15)

    takes the encoder of a pre-trained folder and leaves out its projection and its image-text model; the head is new.

    Example:
        >>> import torch
        >>> from modeling_ulip2 import Ulip2Config, Ulip2ForPointCloudClassification
        >>> config = Ulip2Config(point_config={"model_type": "ulip2_pointnext"}, num_labels=15)
        >>> model = Ulip2ForPointCloudClassification(config)
        >>> output = model(torch.rand(2, 1024, 4), labels=torch.tensor([3, 14]))
        >>> list(output.logits.shape), list(output.loss.shape)
        ([2, 15], [])
    """

    input_modalities = ["point"]
    _keys_to_ignore_on_load_unexpected = [r"^clip_model\.", r"^point_projection\.", r"^logit_(scale|bias)$"]

    def __init__(self, config: Ulip2Config):
        super().__init__(without_tower(config))
        self.num_labels: int = config.num_labels  # type: ignore[assignment]
        self.loss_type = "ForSequenceClassification"
        self._make_point_model(config)
        self.classifier = PointClassificationHead(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """The head as torch initializes its layers; the encoder initializes itself."""
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.BatchNorm1d):
            PreTrainedModel._init_weights(self, module)

    def _card(self, name: str) -> Card:
        card = super()._card(name)
        names: Any = self.config.id2label
        kind = type(self).__name__
        card.introduction = (
            f"Point clouds to {self.num_labels} classes: `{kind}` of modeling-ulip2 (ULIP-2, arXiv 2305.08275)."
        )
        card.usage = point_usage("logits", name) + "\n\n" + classification_usage(name)
        card.rows.append(("classes", _listed([names[label] for label in range(self.num_labels)])))
        card.tags.append("point-cloud-classification")
        card.pipeline_tag = _TASK
        return card

    @can_return_tuple
    def forward(
        self,
        point_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> SequenceClassifierOutput:
        """Classifies clouds.

        Args:
            point_values: (B, N, in_channels), as the encoder reads them.
            labels: (B,) integers in [0, num_labels) for one label per cloud, which is the usual case; floats (B,
                num_labels) for several (`problem_type="multi_label_classification"`), or (B,) for a number (one
                label, or `problem_type="regression"`).
            output_hidden_states, output_attentions: of the point encoder.

        Returns:
            `logits` (B, num_labels) and, with labels, `loss`. The loss of single labels is cross-entropy, in training
            with `config.label_smoothing`.

        Raises:
            ValueError: labels of the wrong shape, or out of range.
        """
        encoded = self._encode(point_values, **options)
        logits = self.classifier(encoded.pooled)  # (B, num_labels)
        return SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits.float(), labels.to(logits.device)),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        whole = not labels.is_floating_point()
        if not whole or self.config.problem_type not in (None, SINGLE_LABEL):
            return self.loss_function(labels, logits, self.config)
        if labels.shape != logits.shape[:1]:
            raise ValueError(
                f"labels must have shape ({len(logits)},), one class per cloud, got {tuple(labels.shape)}."
            )
        if labels.min() < 0 or labels.max() >= self.num_labels:
            raise ValueError(
                f"labels must lie in [0, {self.num_labels}), as the model has {self.num_labels} classes; got "
                f"{labels.min().item()} to {labels.max().item()}. Pass num_labels to from_pretrained for another "
                "number of classes."
            )
        smoothing = self.config.label_smoothing if self.training else 0.0
        return smoothed_cross_entropy(logits, labels, smoothing)


def smoothed_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Cross-entropy of logits (B, C) with targets that give `smoothing` to the other C - 1 classes together.

    This is how the fine-tuning of Point-BERT and of PointNeXt smooths labels. torch's `label_smoothing` spreads its
    share over all C classes, the right one among them, and is the same with `smoothing * C / (C - 1)`.
    """
    classes = logits.shape[-1]
    share = smoothing * classes / (classes - 1) if classes > 1 else 0.0
    return F.cross_entropy(logits, labels.long(), label_smoothing=share)


def classification_usage(name: str = "FOLDER") -> str:
    """How to name the class of a file with the fine-tuned model in the folder or repository `name`."""
    return (
        "```python\nimport modeling_ulip2\nfrom transformers import pipeline\n\n"
        f'pipeline("point-cloud-classification", model="{name}")("chair.glb")\n```'
    )


def _listed(names: list[str], most: int = 60) -> str:
    """Names with commas; of very many the first."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# There is no Auto class for point clouds; by remote code AutoModel gives this class.
Ulip2ForPointCloudClassification.register_for_auto_class("AutoModel")

__all__ = ["PointClassificationHead", "Ulip2ForPointCloudClassification", "smoothed_cross_entropy"]
