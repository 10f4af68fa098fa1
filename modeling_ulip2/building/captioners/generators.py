"""What the command line knows of the captioners that look, without the models that they are made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoding:
    """How captions are drawn: nucleus sampling. All values but the number, which is ULIP-2's, are ours."""

    captions_per_view: int = 10
    top_p: float = 0.9
    temperature: float = 1.0
    max_new_tokens: int = 30


PUBLISHED_COUNT = Decoding()


@dataclass(frozen=True)
class Generator:
    """A captioner of `generate.py`: its class, and what it takes where nothing is said."""

    captioner: str
    model: str
    prompt: str


GENERATORS = {
    "blip2": Generator("Blip2Captioner", "Salesforce/blip2-opt-6.7b", "a photo of"),
    "blip": Generator("BlipCaptioner", "Salesforce/blip-image-captioning-large", "a photo of"),
    "vlm": Generator(
        "VlmCaptioner",
        "HuggingFaceTB/SmolVLM-Instruct",
        "Describe the object in this rendering in one short phrase, without mentioning the background.",
    ),
}
