"""`zero_shot/<file>`: class features, logits and accuracies; token ids; top-k accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from open_clip.tokenizer import SimpleTokenizer

from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult, zero_shot_logits, zero_shot_metrics
from modeling_ulip2.towers.open_clip_processing import tokenizer_from_open_clip
from modeling_ulip2.towers.prompts import class_embeddings
from tests.parity import Case, read_json
from tests.parity.ulip_tokenizer import UlipTokenizer

# What describes the recording and changes nothing.
REMARKS = {"labels", "n_templates", "batch_size", "seed", "note"}


def cases(folder: Path) -> Iterator[Case]:
    for path in sorted(folder.glob("*.json")):
        tensors = path.with_suffix(".safetensors")
        yield Case(folder.name, path.stem, [path] + ([tensors] if tensors.exists() else []), data=path)


def check(case: Case) -> None:
    declared = read_json(case.data)
    if "strings" in declared:
        check_tokens(case, declared)
    elif "labels" in declared:
        check_protocol(case, declared)
    else:
        check_topk(case, declared)


def check_protocol(case: Case, declared: dict) -> None:
    tensors = case.open(case.data.with_suffix(".safetensors"))
    names, accuracies = declared["labels"], {key: value for key, value in declared.items() if key not in REMARKS}
    prompts = tensors["text_features_per_template"]  # (C, T, D)
    templates = [f"template {number} of {{}}" for number in range(declared["n_templates"])]
    assert prompts.shape[:2] == (len(names), len(templates))
    recorded = {
        template.replace("{}", name): prompts[i, j]
        for i, name in enumerate(names)
        for j, template in enumerate(templates)
    }
    classes = class_embeddings(lambda texts: torch.stack([recorded[text] for text in texts]), names, templates)
    case.close("class_features", classes, tensors["class_features"])
    points, labels = tensors["pc_features"], tensors["targets"]
    case.close("logits", zero_shot_logits(points, classes), tensors["logits"])
    assert accuracies, f"{case.name}: no accuracy is recorded"
    topk = [int(key.removeprefix("acc")) for key in accuracies]
    result = zero_shot_metrics(points, classes, labels, names, topk)
    for key, k in zip(accuracies, topk, strict=True):
        case.close(key, 100 * result.micro[f"top{k}"], accuracies[key])


def check_topk(case: Case, declared: dict) -> None:
    tensors = case.open(case.data.with_suffix(".safetensors"))
    assert {name.split(".")[0] for name in tensors} == set(declared), f"{case.name}: JSON and tensors disagree"
    for name, accuracies in declared.items():
        topk = [int(key.removeprefix("top")) for key in accuracies]
        result = ZeroShotResult.from_logits(tensors[f"{name}.logits"], tensors[f"{name}.targets"], topk=topk)
        case.equal(f"{name}.correct", (result.ranked == result.labels[:, None]).T, tensors[f"{name}.correct"].bool())
        for key, k in zip(accuracies, topk, strict=True):
            case.close(f"{name}.{key}", 100 * result.micro[f"top{k}"], accuracies[key])


def check_tokens(case: Case, declared: dict) -> None:
    assert set(declared) == {"strings", "context_length"}
    length = declared["context_length"]
    ulip, converted = UlipTokenizer(), tokenizer_from_open_clip(SimpleTokenizer())
    for text, recorded in declared["strings"].items():
        assert set(recorded) == {"evaluation_tokenizer", "open_clip_tokenizer"}, f"{case.name}: {sorted(recorded)}"
        case.equal(f"evaluation ids of {text!r:.40}", ulip(text, length)[0], recorded["evaluation_tokenizer"])
        ids = converted(text, padding="max_length", truncation=True, max_length=length)["input_ids"]
        case.equal(f"tower ids of {text!r:.40}", ids, recorded["open_clip_tokenizer"])
