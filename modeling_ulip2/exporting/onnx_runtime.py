"""An exported point encoder in the place of the torch one: the same class of model, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig

from modeling_ulip2.models.point_encoder import PointEncoderOutput, PointEncoderPreTrainedModel, check_point_values
from modeling_ulip2.utils.packages import require_package

# As Optimum lays a model folder out.
ONNX_FOLDER = "onnx"
ONNX_FILE = "model.onnx"
QUANTIZED_FILE = "model_quantized.onnx"
_OUTPUTS = ["tokens", "pooled", "centers"]


class OnnxPointEncoder(nn.Module):
    """A point encoder that onnxruntime runs on the CPU; it has no parameters and cannot be trained.

    Args:
        session: of a file of `export_onnx`.
        config: of the encoder.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self, session: Any, config: PreTrainedConfig):
        super().__init__()
        self.session, self.config = session, config
        self.eval()

    def forward(
        self,
        point_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> PointEncoderOutput:
        """Clouds (B, N, in_channels) -> tokens (B, G, width), pooled (B, D), centers (B, G, 3).

        Raises:
            ValueError: wrong clouds; or hidden states or attentions are asked for, which the file does not give.
        """
        if output_hidden_states or output_attentions:
            raise ValueError("an ONNX encoder gives neither hidden states nor attentions: use backend='torch'.")
        config: Any = self.config
        check_point_values(point_values, config.in_channels, min_points=1, setting="the minimum")
        values = point_values.detach().float().cpu().contiguous().numpy()
        tokens, pooled, centers = (
            torch.from_numpy(array) for array in self.session.run(_OUTPUTS, {"point_values": values})
        )
        return PointEncoderOutput(tokens=tokens, pooled=pooled, centers=centers)


def make_session(path: str | Path) -> Any:
    """An onnxruntime session on the CPU, with as many threads as torch may use."""
    onnxruntime: Any = require_package("onnxruntime", "onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; warnings speak of shapes that vary in a loop
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def find_onnx_file(folder: Path, file_name: str | None = None) -> Path:
    """The ONNX file of a model folder.

    Args:
        file_name: one in its `onnx/`; default: `model.onnx`.

    Raises:
        FileNotFoundError: it is not there; the message says how to make it.
    """
    name = ONNX_FILE if file_name is None else file_name
    path = folder / ONNX_FOLDER / name
    if Path(name).name != name or not path.is_file():
        there = sorted(file.name for file in (folder / ONNX_FOLDER).glob("*.onnx"))
        has = f"it has {', '.join(there)}" if there else "make one with"
        remedy = "" if there else f" `ulip2 export {folder} --format onnx`"
        raise FileNotFoundError(f"{folder} has no {ONNX_FOLDER}/{name}: {has}{remedy}")
    return path


def load_onnx_encoder(path: str | Path, config: PreTrainedConfig) -> OnnxPointEncoder:
    """The encoder of an ONNX file; `config` is that of the model or the encoder it was made of."""
    return OnnxPointEncoder(make_session(path), getattr(config, "point_config", config))


def with_onnx_encoder(model: Any, path: str | Path) -> Any:
    """The model with its point encoder replaced by that of an ONNX file; a point encoder itself becomes it."""
    encoder = load_onnx_encoder(path, model.config)
    if isinstance(model, PointEncoderPreTrainedModel):
        return encoder
    model.point_model = encoder
    return model
