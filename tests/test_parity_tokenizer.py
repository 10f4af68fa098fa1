from __future__ import annotations

import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from modeling_ulip2.evaluation import load_class_names, load_templates
from tests.parity.ulip_tokenizer import UlipTokenizer


@pytest.fixture(scope="module")
def tokenizers() -> tuple[UlipTokenizer, SimpleTokenizer]:
    return UlipTokenizer(), SimpleTokenizer()


@pytest.mark.parametrize("names", ["modelnet40", "scanobjectnn", "shapenet55", "objaverse_lvis"])
def test_no_prompt_of_a_benchmark_depends_on_the_tokenizer(names: str, tokenizers):
    ulip, open_clip = tokenizers
    classes, templates = load_class_names(names), load_templates()
    # every class in one template and every template with one class: a prompt is no more than the two
    prompts = [templates[5].format(name) for name in classes] + [template.format(classes[0]) for template in templates]
    ids = ulip(prompts)
    assert torch.equal(ids, open_clip(prompts))
    assert (ids == ulip.eot_token_id).sum(dim=1).tolist() == [1] * len(prompts)  # none was cut


def test_the_two_differences(tokenizers):
    ulip, open_clip = tokenizers
    long = "chair " * 100
    assert ulip(long)[0, -1] != ulip.eot_token_id == open_clip(long)[0, -1]
    assert torch.equal(ulip(long)[0, :-1], open_clip(long)[0, :-1])
    assert ulip("<|endoftext|>")[0, :3].tolist() == [ulip.sot_token_id, ulip.eot_token_id, ulip.eot_token_id]
    assert open_clip("<|endoftext|>")[0, 1] != open_clip.eot_token_id
