"""Tokenizer and image processor against open_clip's own, in memory and after saving."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase

from modeling_ulip2.towers.open_clip_processing import image_processor_from_open_clip, tokenizer_from_open_clip
from tests.towers.world import OPEN_CLIP_PREPROCESSING

open_clip = pytest.importorskip("open_clip")

TEXTS = [
    "a photo of a chair.",
    "A  Point-Cloud   model of a NIGHT STAND!",
    "it's 3 o'clock &amp; café 你好",
    "",
    "!",
    "wow ! !! !!! hi!there?!",
    "word " * 100,
    "<|endoftext|> table",
    "x" * 300,
    "  tabs \t and \n new lines ",
    "don't, we're, I'LL, 'd",
    "ünïcödé ÀÉ İstanbul ß ﬁne oﬃce",
    "an 1890s lamp, 12.5 cm — “quoted” ‘single’ … 🪑",
    "&lt;b&gt; &amp;quot;twice&amp;quot; &#39;apostrophe&#39;",
    "control\x07 characters",
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> dict[str, PreTrainedTokenizerBase]:
    folder = tmp_path_factory.mktemp("tokenizer")
    built = tokenizer_from_open_clip(open_clip.get_tokenizer("ViT-bigG-14"))
    built.save_pretrained(folder)
    return {"built": built, "loaded": AutoTokenizer.from_pretrained(folder)}


@pytest.mark.parametrize("which", ["built", "loaded"])
@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_open_clips(tokenizers: dict[str, PreTrainedTokenizerBase], which: str, text: str) -> None:
    expected = open_clip.tokenize([text])[0].tolist()
    got = tokenizers[which](text, padding="max_length", truncation=True)["input_ids"]
    assert got == expected and len(got) == 77


def test_padding_is_id_zero_and_decoding_reads_well(tokenizers: dict[str, PreTrainedTokenizerBase]) -> None:
    tokenizer = tokenizers["loaded"]
    encoded = tokenizer(["a chair", "a wooden chair!"], padding=True)
    assert encoded["input_ids"][0] == [49406, 320, 4269, 49407, 0, 0]
    assert encoded["attention_mask"] == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert tokenizer.decode(encoded["input_ids"][1], skip_special_tokens=True) == "a wooden chair !"


def test_other_tokenizers_are_refused() -> None:
    canonical = open_clip.tokenizer.SimpleTokenizer(clean="canonicalize")
    with pytest.raises(ValueError, match="tokenizer_kwargs"):
        tokenizer_from_open_clip(canonical)
    with pytest.raises(ValueError, match="hf_tokenizer_name"):
        tokenizer_from_open_clip(object())


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("size", [(48, 48), (96, 64), (20, 45), (224, 224)])
def test_pixels_equal_open_clips(mode: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    config = OPEN_CLIP_PREPROCESSING | {"size": 32, "resize_mode": mode}
    transform = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**config), is_train=False)
    pixel_values = image_processor_from_open_clip(config)(images=image, return_tensors="pt")["pixel_values"]
    # one gray level apart at most, since torchvision and PIL round differently
    torch.testing.assert_close(pixel_values[0], transform(image), atol=1.01 / 255 / 0.2, rtol=0)
    assert (pixel_values[0] - transform(image)).abs().mean() < 1e-3


@pytest.mark.parametrize("change", [{"resize_mode": "longest"}, {"interpolation": "random"}, {"size": (32, 40)}])
def test_other_transforms_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="preprocess_cfg"):
        image_processor_from_open_clip(OPEN_CLIP_PREPROCESSING | {"size": 32} | change)


@torch.no_grad()
def test_folder_equals_open_clip_from_text_and_image_to_features(open_clip_name: str, clip_folder: Path) -> None:
    model, _, transform = open_clip.create_model_and_transforms(open_clip_name)
    model.eval()
    tokenize = open_clip.get_tokenizer(open_clip_name)
    clip, processor = AutoModel.from_pretrained(clip_folder), AutoProcessor.from_pretrained(clip_folder)
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    texts = ["a red chair", "long " * 30]
    inputs = processor(text=texts, images=image, return_tensors="pt", padding=True, truncation=True)
    text = clip.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    torch.testing.assert_close(text, model.encode_text(tokenize(texts)), atol=1e-5, rtol=1e-4)
    image_features = clip.get_image_features(inputs["pixel_values"]).pooler_output
    torch.testing.assert_close(image_features, model.encode_image(transform(image)[None]), atol=1e-5, rtol=1e-4)


WITHOUT_TORCHVISION = """
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.startswith("torchvision") else find_spec(name, *rest)
sys.modules["torchvision"] = None
import numpy as np
from PIL import Image
from transformers import AutoModel, AutoProcessor
processor, model = AutoProcessor.from_pretrained(sys.argv[1]), AutoModel.from_pretrained(sys.argv[1])
image = Image.fromarray(np.full((50, 40, 3), 128, np.uint8))
inputs = processor(text=["a chair"], images=image, return_tensors="pt")
print(type(processor.image_processor).__name__, tuple(model(**inputs).logits_per_image.shape))
"""


def test_folder_loads_without_torchvision(clip_folder: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCHVISION, str(clip_folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "CLIPImageProcessorPil (1, 1)"
