"""The examples in the docstrings of the public classes: each class has one, and it prints what it says."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from transformers import PreTrainedModel

import modeling_ulip2
from modeling_ulip2.models.modeling_conse import ConseModel
from modeling_ulip2.models.modeling_slip import SlipModel

OWN = [getattr(modeling_ulip2, name) for name in modeling_ulip2.__all__]
MODELS = [value for value in OWN if isinstance(value, type) and issubclass(value, PreTrainedModel)]
CLASSES = [*MODELS, SlipModel, ConseModel]


@pytest.mark.parametrize("model_class", CLASSES, ids=lambda value: value.__name__)
def test_example(model_class: Any) -> None:
    parsed = doctest.DocTestParser().get_doctest(
        model_class.__doc__, {}, model_class.__name__, model_class.__module__, None
    )
    assert parsed.examples
    report: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(parsed, out=report.append)
    assert result.failed == 0, "".join(report)


@pytest.mark.parametrize("model_class", CLASSES, ids=lambda value: value.__name__)
def test_forward_is_documented(model_class: Any) -> None:
    documentation = model_class.forward.__doc__
    assert documentation and "(" in documentation, "shapes are missing"
