"""What pre-training needs beyond `transformers.Trainer`."""

from modeling_ulip2.training.arguments import Ulip2TrainingArguments
from modeling_ulip2.training.trainer import Ulip2Trainer

__all__ = ["Ulip2Trainer", "Ulip2TrainingArguments"]
