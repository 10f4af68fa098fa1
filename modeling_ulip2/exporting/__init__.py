"""Models as files for other runtimes: ONNX, `torch.export`, int8.

from modeling_ulip2.exporting import export_folder

export_folder("my-model", "onnx")  # writes my-model/onnx/model.onnx
Ulip2Embedder.from_pretrained("my-model", backend="onnx")
"""

from .folder import FORMATS, Export, export_copy, export_folder
from .onnx_file import export_onnx, quantize_onnx
from .onnx_runtime import OnnxPointEncoder, find_onnx_file, load_onnx_encoder, with_onnx_encoder
from .torch_file import export_torch

__all__ = [
    "FORMATS",
    "Export",
    "OnnxPointEncoder",
    "export_copy",
    "export_folder",
    "export_onnx",
    "export_torch",
    "find_onnx_file",
    "load_onnx_encoder",
    "quantize_onnx",
    "with_onnx_encoder",
]
