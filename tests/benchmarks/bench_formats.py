"""A model folder in every form it can run in: speed, size, cosine to float32 and, with labels, zero-shot accuracy.

    python tests/benchmarks/bench_formats.py MODEL_FOLDER [--points N --clouds 32 --threads 1 --repeats 5]
        [--dataset TRIPLETS --labels LABELS --split_file SPLIT]

Forms: torch in float32 and bf16, onnxruntime in float32 and with int8 weights; where there is a GPU also float32, bf16
and fp16 there. The clouds are random ones, or with --dataset those of its test split. A temporary folder takes the
exports; the model's own folder stays as it is.
"""

from __future__ import annotations

import argparse
import copy
import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench_encoder import median_ms
from bench_table import machine, make_clouds
from torch import Tensor
from torch.nn import functional as F

from modeling_ulip2 import Ulip2Embedder
from modeling_ulip2.data.labeled import ClassificationCollator, labeled_triplets
from modeling_ulip2.embedding.encoding import encode_points
from modeling_ulip2.exporting import export_onnx, quantize_onnx, with_onnx_encoder

CPU = torch.device("cpu")


def forms(model: Any, scratch: Path) -> dict[str, tuple[Any, torch.device, torch.dtype, int]]:
    """Model, device, dtype and bytes of its point side, by name."""
    side = model.point_model
    weights = sum(tensor.numel() for tensor in side.state_dict().values())
    export_onnx(model, scratch / "model.onnx")
    quantize_onnx(scratch / "model.onnx", scratch / "int8.onnx")
    found = {
        "torch float32": (model, CPU, torch.float32, 4 * weights),
        "torch bf16": (copy.deepcopy(model).bfloat16(), CPU, torch.bfloat16, 2 * weights),
    }
    for name, file in {"onnx float32": "model.onnx", "onnx int8": "int8.onnx"}.items():
        own = with_onnx_encoder(copy.deepcopy(model), scratch / file)
        found[name] = (own, CPU, torch.float32, (scratch / file).stat().st_size)
    if torch.cuda.is_available():
        cuda = torch.device("cuda")
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            size = weights * dtype.itemsize
            found[f"CUDA {str(dtype).removeprefix('torch.')}"] = (
                copy.deepcopy(model).to(cuda, dtype),
                cuda,
                dtype,
                size,
            )
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a Ulip2Model")
    parser.add_argument("--points", type=int, help="of a random cloud (default: the feature extractor's)")
    for name, value in {"clouds": 32, "threads": 1, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    for name in ("dataset", "labels", "split_file"):
        parser.add_argument(f"--{name}")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    embedder = Ulip2Embedder.from_pretrained(options.model, device="cpu")
    channels = embedder.model.config.point_config.in_channels
    points = options.points or embedder.feature_extractor.num_points or 2048
    clouds, targets, class_embeds = make_clouds(options.clouds, points, CPU)[..., :channels], None, None
    if options.dataset:
        test = labeled_triplets(options.dataset, options.labels, options.split_file).test
        batch = ClassificationCollator(embedder.feature_extractor, augmentation=None)(
            [test[i] for i in range(len(test))]
        )
        clouds, targets = batch["point_values"], batch["labels"]
        class_embeds = embedder.embed_labels(list(test.class_names))

    def embeds(form: tuple[Any, torch.device, torch.dtype, int]) -> Tensor:
        model, device, dtype, _ = form
        # coordinates stay float32: sampling and grouping depend on their last digits
        rows = [encode_points(model, part.to(device), "embeds") for part in clouds.split(8)]
        return F.normalize(torch.cat(rows).float().cpu(), dim=-1)

    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        found = forms(embedder.model, Path(scratch))
        expected = embeds(found["torch float32"])
        print(
            f"{options.model}, {len(clouds)} clouds of {clouds.shape[1]} points; {machine(CPU)}, {options.threads} "
            f"thread(s), torch {torch.__version__}; ms per cloud, median of {options.repeats}"
        )
        print(f"{'form':<16}{'ms':>8}{'MB':>8}{'cosine':>9}{'lowest':>9}{'top-1':>8}")
        one = clouds[:1]
        for name, form in found.items():
            model, device, _, size = form
            run = functools.partial(encode_points, model, one.to(device), "embeds")
            times = median_ms({name: run}, options.repeats, device)
            rows = embeds(form)
            cosine = (rows * expected).sum(-1)
            line = f"{name:<16}{times[name]:>8.1f}{size / 1e6:>8.1f}{cosine.mean():>9.5f}{cosine.min():>9.5f}"
            if targets is not None and class_embeds is not None:
                line += f"{((rows @ class_embeds.T).argmax(-1) == targets).float().mean():>8.3f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
