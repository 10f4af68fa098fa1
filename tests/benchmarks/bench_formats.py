"""A model folder in every form it can run in: speed, size, cosine to float32 and, with labels, zero-shot accuracy.

    python tests/benchmarks/bench_formats.py MODEL_FOLDER [--points N --clouds 32 --batch 8 --threads 1 --repeats 5]
        [--dataset TRIPLETS … --labels LABELS --split_file SPLIT [--test NAME]]

Forms: torch in float32, bf16 and, where torchao is installed, with int8 weights; onnxruntime in float32 and with int8
weights; where there is a GPU also float32, bf16 and fp16 there. The clouds are random ones, or those of a split's test
part, classified among their own categories. A temporary folder takes the exports; the model's own stays as it is.
"""

from __future__ import annotations

import argparse
import copy
import functools
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench_encoder import median_ms
from bench_table import machine, make_clouds
from datasets import concatenate_datasets
from torch import Tensor
from torch.nn import functional as F

from modeling_ulip2 import Ulip2Embedder
from modeling_ulip2.data.collator import CloudCollator
from modeling_ulip2.data.labels import class_names_of, read_labels
from modeling_ulip2.data.reading import CloudRows, read_split, read_triplets, select_ids
from modeling_ulip2.embedding.encoding import encode_points
from modeling_ulip2.exporting import export_onnx, quantize_onnx, with_onnx_encoder

CPU = torch.device("cpu")


def forms(model: Any, scratch: Path) -> dict[str, tuple[Any, torch.device, int]]:
    """Model, device and bytes of its point side, by name."""
    weights = sum(tensor.numel() for tensor in model.point_model.state_dict().values())
    export_onnx(model, scratch / "model.onnx")
    quantize_onnx(scratch / "model.onnx", scratch / "int8.onnx", model)
    found = {
        "torch float32": (model, CPU, 4 * weights),
        "torch bf16": (copy.deepcopy(model).bfloat16(), CPU, 2 * weights),
    }
    if importlib.util.find_spec("torchao"):
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        int8 = copy.deepcopy(model)
        quantize_(int8.point_model, Int8DynamicActivationInt8WeightConfig())
        linear = sum(module.weight.numel() for module in model.point_model.modules() if is_linear(module))
        found["torchao int8"] = (int8, CPU, 4 * weights - 3 * linear)
        compiled = copy.deepcopy(int8)
        compiled.point_model = torch.compile(compiled.point_model, dynamic=True)
        found["… compiled"] = (compiled, CPU, 4 * weights - 3 * linear)
    for name, file in {"onnx float32": "model.onnx", "onnx int8": "int8.onnx"}.items():
        own = with_onnx_encoder(copy.deepcopy(model), scratch / file)
        found[name] = (own, CPU, (scratch / file).stat().st_size)
    if torch.cuda.is_available():
        cuda = torch.device("cuda")
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            own = copy.deepcopy(model).to(cuda, dtype)
            found[f"CUDA {str(dtype).removeprefix('torch.')}"] = (own, cuda, weights * dtype.itemsize)
    return found


def is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)


def labeled_clouds(embedder: Ulip2Embedder, options: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    """The clouds (N, P, C) of the test, their classes (N,), and the embeddings of the classes (K, D)."""
    split = json.loads(Path(options.split_file).read_text(encoding="utf-8"))
    ids = split["tests"][options.test] if options.test else read_split(options.split_file)["test"]
    rows = select_ids(concatenate_datasets([read_triplets(folder) for folder in options.dataset]), ids, "test")
    labels = read_labels(options.labels, rows["id"])
    rows = select_ids(rows, [name for name in rows["id"] if name in labels], "labeled")
    names = class_names_of(labels, rows["id"])
    clouds = CloudRows(rows)
    collator = CloudCollator(embedder.feature_extractor, augmentation=None)
    values = collator.points([{"id": name, **clouds[index]} for index, name in enumerate(rows["id"])])
    return values, torch.tensor([names.index(labels[name]) for name in rows["id"]]), embedder.embed_labels(names)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a Ulip2Model")
    parser.add_argument("--points", type=int, help="of a random cloud (default: the feature extractor's)")
    for name, value in {"clouds": 32, "batch": 8, "threads": 1, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dataset", nargs="*", help="folders of triplets")
    for name in ("labels", "split_file", "test"):
        parser.add_argument(f"--{name}")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    embedder = Ulip2Embedder.from_pretrained(options.model, device="cpu")
    channels = embedder.model.config.point_config.in_channels
    points = options.points or embedder.feature_extractor.num_points or 2048
    clouds, targets, class_embeds = make_clouds(options.clouds, points, CPU)[..., :channels], None, None
    if options.dataset:
        clouds, targets, class_embeds = labeled_clouds(embedder, options)

    def embeds(form: tuple[Any, torch.device, int]) -> Tensor:
        model, device, _ = form
        # coordinates stay float32: sampling and grouping depend on their last digits
        rows = [encode_points(model, part.to(device), "embeds") for part in clouds.split(8)]
        return F.normalize(torch.cat(rows).float().cpu(), dim=-1)

    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        found = forms(embedder.model, Path(scratch))
        # the forms take turns, so that whatever else the machine does meets all
        times = {}
        for size in (1, options.batch):
            some = clouds[:size]
            runs = {
                name: functools.partial(encode_points, model, some.to(device), "embeds")
                for name, (model, device, _) in found.items()
            }
            times[size] = median_ms(runs, options.repeats, CPU)
        expected = embeds(found["torch float32"])
        classes = "" if class_embeds is None else f" of {len(class_embeds)} classes"
        print(
            f"{options.model}, {len(clouds)} clouds{classes}, {clouds.shape[1]} points; {machine(CPU)}, "
            f"{options.threads} thread(s), torch {torch.__version__}; ms per cloud, median of {options.repeats}"
        )
        batch = f"ms of {options.batch}"
        print(f"{'form':<16}{'ms':>8}{batch:>9}{'MB':>8}{'cosine':>9}{'lowest':>9}{'top-1':>8}{'agree':>8}")
        for name, form in found.items():
            rows = embeds(form)
            cosine = (rows * expected).sum(-1)
            line = f"{name:<16}{times[1][name]:>8.1f}{times[options.batch][name] / options.batch:>9.1f}"
            line += f"{form[2] / 1e6:>8.1f}{cosine.mean():>9.5f}{cosine.min():>9.5f}"
            if targets is not None and class_embeds is not None:
                named, before = (rows @ class_embeds.T).argmax(-1), (expected @ class_embeds.T).argmax(-1)
                line += f"{(named == targets).float().mean():>8.3f}{(named == before).float().mean():>8.3f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
