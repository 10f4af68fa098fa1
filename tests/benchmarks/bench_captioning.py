"""Captions a second of BLIP-2, batched over an object's views and over the captions of a view, and one by one.

    python tests/benchmarks/bench_captioning.py [--scale full --dtype bfloat16 --views 12 --captions 10]

The weights are random: no model is fetched. `full` has the sizes of Salesforce/blip2-opt-6.7b and is the default on a
GPU, where its weights take 16 GB in bfloat16; `small` runs anywhere. Random weights hardly ever end a caption, so that
every one takes all --max-new-tokens: real captions are shorter. Times are wall clock.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, BlipImageProcessor

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "dataset_scripts")]

from modeling_ulip2.building.captioners.generate import Blip2Captioner, Decoding  # noqa: E402
from modeling_ulip2.building.stages.tower import DTYPES, resolve_dtype  # noqa: E402
from tests.building.captioners.captioning_models import build_tokenizer  # noqa: E402

QUERIES = 32
SCALES: dict[str, dict[str, Any]] = {
    "full": {
        "size": 224,
        "vision": {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39, "num_attention_heads": 16},
        "qformer": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        "text": {"hidden_size": 4096, "ffn_dim": 16384, "num_hidden_layers": 32, "num_attention_heads": 32},
        "vocab_size": 50304,
    },
    "small": {
        "size": 56,
        "vision": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
        "qformer": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
        "text": {"hidden_size": 128, "ffn_dim": 256, "num_hidden_layers": 2, "num_attention_heads": 4},
        "vocab_size": 2048,
    },
}


class RandomCaptioner(Blip2Captioner):
    """BLIP-2 of a given scale with random weights, made where it runs."""

    def __init__(self, scale: str, decoding: Decoding, views_per_batch: int, device: str, dtype: torch.dtype) -> None:
        sizes, tokenizer = SCALES[scale], build_tokenizer()
        text = sizes["text"] | {"model_type": "opt", "vocab_size": sizes["vocab_size"], "max_position_embeddings": 512}
        text |= {"word_embed_proj_dim": sizes["text"]["hidden_size"], "do_layer_norm_before": True}
        config = Blip2Config(
            vision_config=sizes["vision"] | {"image_size": sizes["size"], "patch_size": 14},
            qformer_config=sizes["qformer"] | {"encoder_hidden_size": sizes["vision"]["hidden_size"]},
            text_config=text | {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
            num_query_tokens=QUERIES,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                self.model = Blip2ForConditionalGeneration(config).eval().requires_grad_(False)
        finally:
            torch.set_default_dtype(before)
        images = BlipImageProcessor(size={"height": sizes["size"], "width": sizes["size"]})
        self.processor = Blip2Processor(images, tokenizer, QUERIES)
        self.prompt, self.decoding, self.views_per_batch = self.default_prompt, decoding, views_per_batch
        self.seed, self.dtype = 0, dtype


def seconds(function: Callable[[], Any], device: str) -> float:
    start = time.perf_counter()
    function()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(device: str) -> str:
    if device.startswith("cuda"):
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of GPU memory"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB of the process"


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=list(SCALES), default="full" if gpu else "small")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--dtype", choices=DTYPES, default="auto")
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--captions", type=int, default=Decoding.captions_per_view)
    parser.add_argument("--max-new-tokens", type=int, default=Decoding.max_new_tokens)
    parser.add_argument("--objects", type=int, default=3, help="repeats of the batched way")
    args = parser.parse_args()
    dtype = resolve_dtype(args.dtype, args.device)
    decoding = Decoding(args.captions, max_new_tokens=args.max_new_tokens)
    ours = RandomCaptioner(args.scale, decoding, args.views, args.device, dtype)
    parameters = sum(parameter.numel() for parameter in ours.model.parameters())
    name = torch.cuda.get_device_name() if args.device.startswith("cuda") else "the CPU"
    print(f"BLIP-2 of {parameters / 1e6:,.1f} M parameters, {dtype}, on {name}, {args.views} views x {args.captions}")

    noise = np.random.default_rng(0).integers(256, size=(args.views, 224, 224, 3), dtype=np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    ours.caption_images(images, 0)  # kernels are chosen and memory is taken
    batched = min(seconds(lambda: ours.caption_images(images, 0), args.device) for _ in range(args.objects))

    def one_by_one() -> None:
        ours.decoding = Decoding(1, max_new_tokens=args.max_new_tokens)
        for _ in range(args.captions):
            ours.caption_images(images[:1], 0)

    alone = seconds(one_by_one, args.device) * args.views  # of one view, and the others take as long
    total = args.views * args.captions
    print(f"batched     {total / batched:9.1f} captions/s  {batched:8.2f} s per object")
    print(f"one by one  {total / alone:9.1f} captions/s  {alone:8.2f} s per object")
    print(f"ratio {alone / batched:.1f}; peak {peak_memory(args.device)}")


if __name__ == "__main__":
    main()
