"""Captioners that look: image-to-text models of transformers, which see each view alone and draw several captions.

ULIP-2 (section 3.1) has BLIP-2 with OPT-6.7B say ten captions of each view. It published neither prompt nor decoding:
both are ours, and every build records what it used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    Blip2ForConditionalGeneration,
    BlipForConditionalGeneration,
)

from modeling_ulip2.building.stages.base import Batch, local_name, object_seed
from modeling_ulip2.building.stages.tower import HubPairs, resolve_dtype
from modeling_ulip2.data.images import open_view
from modeling_ulip2.towers.fingerprint import model_digest

from .base import Captioner
from .generators import GENERATORS, PUBLISHED_COUNT, Decoding

# One to four words, said four times or more in a row: a language model that went round in circles.
LOOP = re.compile(r"\b(\w+(?:\W+\w+){0,3}?)(?:\W+\1\b){3,}", re.IGNORECASE)


class GeneratingCaptioner(Captioner):
    """`captions_per_view` sampled captions per view; repeated and degenerate ones are left out, so there may be fewer.

    What is drawn for an object depends on the seed and its id alone: its views go through the model in batches of
    `views_per_batch`, which never mix objects, so that neither shards nor engines nor the number of processes change
    a bit of the arithmetic.

    Args:
        model: a folder or a hub name.
        prompt: what the model is told; None takes the captioner's own. It is no part of the captions.
        views_per_batch: views that the model sees at once; each of them takes the memory of all its captions.
        device: default: a GPU if there is one.
        dtype: see `stages.tower.resolve_dtype`.
        hub: see `stages.tower.hub_pairs`.
        device_map: such as "auto", to spread the model over the GPUs that the process sees; instead of `device`.

    Raises:
        OSError: there is no such model, or it cannot be fetched.
        ValueError: it is of another kind, or does not fit into the GPUs.
    """

    batch_size = 1
    on_gpu = True
    default_model: str
    default_prompt: str
    model_class: Any
    model_type: str | None = None  # None: any that `model_class` knows

    def __init__(
        self,
        model: str | None = None,
        prompt: str | None = None,
        decoding: Decoding = PUBLISHED_COUNT,
        views_per_batch: int = 12,
        seed: int = 0,
        device: str | None = None,
        dtype: str = "auto",
        device_map: str | None = None,
        hub: HubPairs = (),
    ) -> None:
        self.name = model or self.default_model
        self.prompt = self.default_prompt if prompt is None else prompt
        self.decoding, self.views_per_batch, self.seed = decoding, views_per_batch, seed
        self.dtype = resolve_dtype(dtype, device)
        fetching: dict[str, Any] = dict(hub)
        self._check_kind(fetching)
        self.processor: Any = AutoProcessor.from_pretrained(self.name, **fetching)
        loaded = self.model_class.from_pretrained(self.name, dtype=self.dtype, device_map=device_map, **fetching)
        if device_map is None:
            loaded = loaded.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if any(parameter.is_meta for parameter in loaded.parameters()):
            raise ValueError(
                f"{self.name} does not fit into the GPUs of a process: give it more (--gpus-per-process) or smaller "
                "numbers (--dtype bfloat16)"
            )
        self.model: Any = loaded.eval().requires_grad_(False)

    def _check_kind(self, fetching: dict[str, Any]) -> None:
        found = AutoConfig.from_pretrained(self.name, **fetching).model_type
        if self.model_type not in (None, found):
            raise ValueError(f"{self.name} is a model of type {found!r}, where {self.model_type!r} is expected")

    def describe(self) -> dict[str, Any]:
        return {
            "model": local_name(self.name),
            "weights": model_digest(self.model, self.processor.tokenizer, self.processor.image_processor),
            "precision": str(self.dtype).removeprefix("torch."),
            "prompt": self.prompt,
            **asdict(self.decoding),
            "views_per_batch": self.views_per_batch,
        }

    def caption(self, batch: Batch) -> list[list[list[str]]]:
        captions = []
        for object_id, views in zip(batch["id"], batch["views"], strict=True):
            of_object: list[list[str]] = []
            for start in range(0, len(views), self.views_per_batch):
                images = [open_view(view) for view in views[start : start + self.views_per_batch]]
                of_object += self.caption_images(images, object_seed(self.seed, f"{object_id}/{start}"))
            captions.append(of_object)
        return captions

    @torch.inference_mode()
    def caption_images(self, images: Sequence[Image.Image], seed: int) -> list[list[str]]:
        """Captions [image][k] of images that go through the model together."""
        inputs = self.prepare(images).to(self.model.device, self.dtype)  # integers keep their type
        try:
            with seeded(seed):
                tokens = self.model.generate(
                    **inputs,
                    do_sample=True,
                    num_beams=1,
                    top_k=0,
                    top_p=self.decoding.top_p,
                    temperature=self.decoding.temperature,
                    max_new_tokens=self.decoding.max_new_tokens,
                    num_return_sequences=self.decoding.captions_per_view,
                )  # (images * captions_per_view, T)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"the GPU has not enough memory for {len(images)} views at once; try fewer (--caption-batch): {error}"
            ) from error
        tokens = tokens[:, self.prompt_length(inputs) :]
        texts = self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        count = self.decoding.captions_per_view
        return [list(filter(is_caption, texts[i * count : (i + 1) * count])) for i in range(len(images))]

    def prepare(self, images: Sequence[Image.Image]) -> BatchFeature:
        """Inputs of the model: the images and the prompt, once for each of them."""
        return self.processor(images=list(images), text=[self.prompt] * len(images), padding=True, return_tensors="pt")

    def prompt_length(self, inputs: Mapping[str, Tensor]) -> int:
        """How many tokens before the caption `generate` gives back."""
        return inputs["input_ids"].shape[1]


class Blip2Captioner(GeneratingCaptioner):
    """BLIP-2 with any language model, as in ULIP-2."""

    default_model, default_prompt = GENERATORS["blip2"].model, GENERATORS["blip2"].prompt
    model_class = Blip2ForConditionalGeneration
    model_type = "blip-2"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.processor.num_query_tokens is None:  # older checkpoints have it in the model alone
            self.processor.num_query_tokens = self.model.config.num_query_tokens

    def prompt_length(self, inputs: Mapping[str, Tensor]) -> int:
        # an encoder-decoder such as T5 begins anew: its start token is left out as a special one
        return 0 if self.model.language_model.config.is_encoder_decoder else super().prompt_length(inputs)


class BlipCaptioner(GeneratingCaptioner):
    """BLIP, to which the paper compares BLIP-2."""

    default_model, default_prompt = GENERATORS["blip"].model, GENERATORS["blip"].prompt
    model_class = BlipForConditionalGeneration
    model_type = "blip"

    def prompt_length(self, inputs: Mapping[str, Tensor]) -> int:
        return super().prompt_length(inputs) - 1  # `generate` drops the end token of the prompt


class VlmCaptioner(GeneratingCaptioner):
    """Any image-text-to-text model of transformers with a chat template."""

    default_model, default_prompt = GENERATORS["vlm"].model, GENERATORS["vlm"].prompt
    model_class = AutoModelForImageTextToText

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not getattr(self.processor, "chat_template", None):
            raise ValueError(f"{self.name} has no chat template, so that it cannot be asked; see blip2 and blip")
        self.processor.tokenizer.padding_side = "left"  # the captions begin right after the prompt
        message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": self.prompt}]}
        self.chat = self.processor.apply_chat_template([message], add_generation_prompt=True)

    def prepare(self, images: Sequence[Image.Image]) -> BatchFeature:
        nested = [[image] for image in images]  # some processors ask for the images of each text
        return self.processor(text=[self.chat] * len(images), images=nested, padding=True, return_tensors="pt")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seed within, and go on as before afterwards, on all devices."""
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def is_caption(text: str) -> bool:
    """Whether a text says something: it has a letter and does not go round in circles."""
    return any(letter.isalpha() for letter in text) and LOOP.search(text) is None
