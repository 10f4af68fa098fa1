"""One fingerprint for one function: it changes with whatever changes embeddings, and with nothing else."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoProcessor, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from modeling_ulip2.towers import TransformersTower, load_tower
from modeling_ulip2.towers.fingerprint import RECIPE, made_by_older_recipe, model_digest
from tests.towers.test_contract import KINDS
from tests.towers.world import save_open_clip, tiny_conse


@pytest.fixture(params=KINDS)
def reference(request: pytest.FixtureRequest) -> str:
    if request.param == "open_clip":
        return f"open_clip:{request.getfixturevalue('open_clip_name')}"
    return str(request.getfixturevalue(f"{request.param}_folder"))


def as_tower(folder: Path | str, change: Callable[[Any, Any], None] = lambda model, processor: None) -> Any:
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    change(model, processor)
    return TransformersTower(model, processor.tokenizer, processor.image_processor, "changed")


def test_it_names_the_recipe(reference: str) -> None:
    fingerprint = load_tower(reference, device="cpu").fingerprint
    assert f"-v{RECIPE}-" in fingerprint and not made_by_older_recipe(fingerprint)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_precision_is_no_part_of_it(reference: str, dtype: torch.dtype) -> None:
    tower = load_tower(reference, device="cpu", dtype=dtype)
    assert tower.dtype == dtype and tower.fingerprint == load_tower(reference, device="cpu").fingerprint


def test_saving_and_moving_is_no_part_of_it(reference: str, tmp_path: Path) -> None:
    tower = load_tower(reference, device="cpu")
    tower.pretrained_model.save_pretrained(tmp_path / "a")
    tower.tokenizer.save_pretrained(tmp_path / "a")
    tower.image_processor.save_pretrained(tmp_path / "a")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert load_tower(tmp_path / "b", device="cpu").fingerprint == tower.fingerprint


def test_open_clip_and_its_conversion_are_one(open_clip_name: str, clip_folder: Path) -> None:
    direct, converted = load_tower(f"open_clip:{open_clip_name}", device="cpu"), load_tower(clip_folder, device="cpu")
    assert direct.fingerprint == converted.fingerprint and direct.fingerprint.startswith("clip-")


def test_clip_as_openai_published_it_is_the_same_function(clip_folder: Path) -> None:
    """Ids that nothing looks for, the tokenizer class, padding: other words for the same embeddings."""
    expected = load_tower(clip_folder, device="cpu")
    model = CLIPModel.from_pretrained(clip_folder)
    model.config.text_config.update({"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 49407})
    model.config.update({"projection_dim": 24, "initializer_factor": 0.5})
    model.config.vision_config.attention_dropout = 0.1
    vocabulary = {token: id for token, id in expected.tokenizer.get_vocab().items()}
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=list(SimpleTokenizer().bpe_ranks), model_max_length=20)
    settings = expected.image_processor.to_dict()
    kept = {name: settings[name] for name in ("crop_size", "image_mean", "image_std", "resample", "size")}
    other = TransformersTower(model, tokenizer, CLIPImageProcessor(**kept), "hub")
    assert tokenizer.pad_token != expected.tokenizer.pad_token
    assert other.fingerprint == expected.fingerprint
    texts = ["a photo of a chair", "two lamps"]
    torch.testing.assert_close(other.encode_text(texts), expected.encode_text(texts))


def one_weight(model: Any, processor: Any) -> None:
    with torch.no_grad():
        # one number in the middle, which a sample of each tensor would miss
        model.text_model.embeddings.token_embedding.weight[31, 3] += 0.5


def two_weights_exchanged(model: Any, processor: Any) -> None:
    weight = model.text_model.embeddings.token_embedding.weight
    with torch.no_grad():
        weight[[30, 31]] = weight[[31, 30]]


def activation(model: Any, processor: Any) -> None:
    assert model.config.text_config.hidden_act == "quick_gelu"
    model.config.text_config.hidden_act = "gelu"


def vision_activation(model: Any, processor: Any) -> None:
    model.config.vision_config.hidden_act = "gelu"


def heads(model: Any, processor: Any) -> None:
    model.config.vision_config.num_attention_heads = 2


def epsilon(model: Any, processor: Any) -> None:
    model.config.text_config.layer_norm_eps = 1e-3


def pooling(model: Any, processor: Any) -> None:
    model.config.text_config.eos_token_id = 320


def vocabulary(model: Any, processor: Any) -> None:
    processor.tokenizer.add_tokens(["gizmo"])


def length(model: Any, processor: Any) -> None:
    processor.tokenizer.model_max_length = 9


def casing(model: Any, processor: Any) -> None:
    processor.tokenizer.backend_tokenizer.normalizer = None


def size(model: Any, processor: Any) -> None:
    processor.image_processor.size = {"shortest_edge": 40}


def mean(model: Any, processor: Any) -> None:
    processor.image_processor.image_mean = [0.5, 0.5, 0.5]


def interpolation(model: Any, processor: Any) -> None:
    processor.image_processor.resample = 2


def crop(model: Any, processor: Any) -> None:
    processor.image_processor.do_center_crop = False


def rescaling(model: Any, processor: Any) -> None:
    processor.image_processor.do_rescale = False


CHANGES = [
    one_weight,
    two_weights_exchanged,
    activation,
    vision_activation,
    heads,
    epsilon,
    pooling,
    vocabulary,
    length,
    casing,
    size,
    mean,
    interpolation,
    crop,
    rescaling,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_changes_embeddings_changes_it(clip_folder: Path, change: Callable[[Any, Any], None]) -> None:
    before, after = as_tower(clip_folder), as_tower(clip_folder, change)
    assert before.fingerprint == load_tower(clip_folder, device="cpu").fingerprint
    assert after.fingerprint != before.fingerprint


def test_open_clips_activation_changes_it(open_clip_name: str, tmp_path: Path) -> None:
    other = load_tower(f"open_clip:{save_open_clip(tmp_path / 'gelu')}", device="cpu")
    quick = load_tower(f"open_clip:{open_clip_name}", device="cpu")
    weights, others = quick.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert other.fingerprint != quick.fingerprint


def test_what_conse_is_made_of_changes_it(conse_folder: Path) -> None:
    def top_k(model: Any, processor: Any) -> None:
        model.config.top_k = 1

    def sentence_activation(model: Any, processor: Any) -> None:
        model.config.text_config.hidden_act = "relu"

    prints = [as_tower(conse_folder, change).fingerprint for change in (top_k, sentence_activation)]
    assert len({*prints, load_tower(conse_folder, device="cpu").fingerprint}) == 3


def test_a_model_that_open_clip_alone_runs_has_one_too(tmp_path: Path) -> None:
    """No CLIPModel expresses layer scale: it cannot be trained against without stored features, which it makes."""
    name = save_open_clip(tmp_path / "scaled", vision_cfg={"ls_init_value": 0.1})
    tower = load_tower(f"open_clip:{name}", device="cpu")
    assert tower.fingerprint.startswith(f"open_clip-v{RECIPE}-")
    assert tower.fingerprint == load_tower(f"open_clip:{name}", device="cpu").fingerprint
    assert tower.tokenizer and tower.image_processor
    with pytest.raises(ValueError, match="ls_init_value"):
        assert tower.pretrained_model


def test_models_that_write_captions_have_digests_of_the_same_recipe() -> None:
    model, processor = tiny_conse()
    digest = model_digest(model, processor.tokenizer, processor.image_processor)
    changed = copy.deepcopy(model)
    changed.config.text_config.hidden_act = "relu"
    assert model_digest(changed, processor.tokenizer, processor.image_processor) != digest
    assert digest.startswith(f"conse-v{RECIPE}-")


def test_an_older_recipe_is_told() -> None:
    assert made_by_older_recipe("clip-0123456789abcdef") and made_by_older_recipe("open_clip-0123456789abcdef")
    assert not made_by_older_recipe("conse-0") and not made_by_older_recipe(f"clip-v{RECIPE}-0123456789abcdef")
