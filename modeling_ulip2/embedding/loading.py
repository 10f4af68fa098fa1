"""A model that embeds shapes, from a folder or the hub, with its feature extractor."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from modeling_ulip2.conversion.catalog import is_release
from modeling_ulip2.conversion.named import converted_release
from modeling_ulip2.models.configuration_captioning_ulip2 import Ulip2CaptioningConfig
from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.utils.places import find_folder, find_model

# What `from_pretrained` of every class understands; the rest is for the model alone.
_HUB_OPTIONS = {"cache_dir", "code_revision", "force_download", "local_files_only", "revision", "subfolder", "token"}
_HUB_OPTIONS |= {"trust_remote_code"}


def locate_model(name: str, **hub: Any) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes for a model, and with which arguments.

    Args:
        name: a folder, a name on the hub, or that of a published checkpoint, which is fetched and converted first.
        hub: `revision`, `token`, `cache_dir` and the like.

    Raises:
        PlaceError: there is no such folder, nor such a model on the hub.
    """
    fetching = {key: hub[key] for key in ("revision", "token", "cache_dir") if key in hub}
    if is_release(name):  # the revision is that of the repository in which the checkpoint lies
        return str(converted_release(name, **fetching)), {k: v for k, v in hub.items() if k != "revision"}
    return find_model(name, **fetching), hub


def load_shape_model(
    name: str,
    tower: str | os.PathLike[str] | None = None,
    device: str | int | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    **kwargs: Any,
) -> tuple[Any, Ulip2FeatureExtractor]:
    """A model in evaluation mode and its feature extractor; see `Ulip2Embedder.from_pretrained`."""
    if device is not None and kwargs.get("device_map") is not None:
        raise ValueError("device and device_map are two answers to one question: pass one of them.")
    place, kwargs = locate_model(name, **kwargs)
    hub = {key: value for key, value in kwargs.items() if key in _HUB_OPTIONS}
    config = AutoConfig.from_pretrained(place, **hub)
    if isinstance(config, Ulip2CaptioningConfig):
        raise ValueError(
            f"{name} holds a captioner, which describes shapes and has no space of texts: use it with "
            "`ulip2 caption` or the pipeline point-cloud-to-text, or pass its point model here."
        )
    if tower is not None and hasattr(config, "clip_name_or_path"):
        tower = os.fspath(tower)
        # in a configuration "./" means beside the model, here it means where we are
        here = os.path.isdir(tower) or tower.startswith((".", "~"))
        kwargs["clip_name_or_path"] = os.path.abspath(os.path.expanduser(tower)) if here else tower
    model = AutoModel.from_pretrained(place, dtype=dtype or torch.float32, **kwargs)
    if not hasattr(getattr(model, "config", None), "point_config") and not hasattr(model.config, "output_dim"):
        raise ValueError(f"{name} holds a {type(model).__name__}, no model of point clouds.")
    features = AutoFeatureExtractor.from_pretrained(place, **hub)
    if kwargs.get("device_map") is None:
        best = "cuda" if torch.cuda.is_available() else "cpu"
        model = model.to(best if device is None else device)
    return model.eval(), features


def load_onnx_model(
    name: str,
    file_name: str | None = None,
    tower: str | os.PathLike[str] | None = None,
    device: str | int | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    **kwargs: Any,
) -> tuple[Any, Ulip2FeatureExtractor]:
    """As `load_shape_model`, with onnxruntime for the point encoder; see `Ulip2Embedder.from_pretrained`.

    Raises:
        ValueError: another device or dtype is asked for than onnxruntime's, the CPU and float32.
    """
    from modeling_ulip2.exporting import find_onnx_file, with_onnx_encoder

    if (device is not None and torch.device(device).type != "cpu") or kwargs.get("device_map") is not None:
        raise ValueError("backend='onnx' runs on the CPU: leave device out, or pass 'cpu'.")
    if dtype not in (None, torch.float32, "float32"):
        raise ValueError(f"backend='onnx' computes in float32, or in int8 as its file says, not in {dtype}.")
    hub = {key: kwargs[key] for key in ("revision", "token", "cache_dir") if key in kwargs}
    path = find_onnx_file(find_folder(name, **hub), file_name)
    model, features = load_shape_model(name, tower, "cpu", **kwargs)
    return with_onnx_encoder(model, path), features
