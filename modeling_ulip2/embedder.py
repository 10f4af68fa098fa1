"""The front door: 3D shapes, texts and images to vectors of one space.

    from modeling_ulip2 import Ulip2Embedder

    ulip2 = Ulip2Embedder.from_pretrained("ORG/ulip2-pointbert")
    shapes = ulip2.embed_shapes(["chair.glb", "scan.ply", points])             # (3, D), unit length
    ulip2.similarity(shapes, ulip2.embed_texts(["a wooden chair", "a lamp"]))  # (3, 2)
    ulip2.classify("chair.glb", ["chair", "table"], templates="modelnet40_64")

Pipelines, commands, evaluation and search embed through this class, so that a shape has one vector everywhere.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .data.candidate_labels import check_labels, check_top_k, ranked
from .embedding.encoding import check_evaluating, choose_features, encode_points, in_batches
from .embedding.loading import load_onnx_model, load_shape_model
from .embedding.loop import embed_each
from .embedding.reading import Reading, as_list, is_single, names_file
from .embedding.records import ShapeEmbeddings, ShapeRecord
from .models.feature_extraction_ulip2 import Ulip2FeatureExtractor
from .models.private_apis import execution_device
from .towers.of_model import load_tower_of
from .towers.prompts import KeptLabels, resolve_templates
from .utils.places import is_hub_name
from .utils.tensors import finite

if TYPE_CHECKING:
    from .towers import Tower

logger = logging.getLogger(__name__)

BATCH_SIZE = 16


class Ulip2Embedder:
    """A model with all that turns shapes, texts and images into vectors.

    `from_pretrained` loads one. All vectors are float32 on the CPU and of unit length. Safe to share between threads.

    Args:
        model: in evaluation mode: a `Ulip2Model`; without texts and images also a `Ulip2PointModelWithProjection`, a
            `Ulip2PointModel` or a point encoder.
        feature_extractor: of the model.
        tower: the image-text model of the model's space, or a function that loads it; default: what the model names.
        name: what messages and cards call the model; default: where it was loaded from.
        batch_size: clouds per forward pass.
        num_workers: processes that read files; None: as many as the machine has to spare, on long lists.

    Attributes:
        encoder_seconds: spent in the encoder so far, transfer to the device included.
    """

    def __init__(
        self,
        model: Any,
        feature_extractor: Ulip2FeatureExtractor,
        tower: Tower | Callable[[], Tower] | None = None,
        *,
        name: str | None = None,
        batch_size: int = BATCH_SIZE,
        num_workers: int | None = None,
    ) -> None:
        self.model, self.feature_extractor = model, feature_extractor
        self.name = name or str(getattr(model, "name_or_path", "") or type(model).__name__)
        self.batch_size, self.num_workers = batch_size, num_workers
        self.encoder_seconds = 0.0
        self._tower = tower
        self._labels = KeptLabels()
        self._lock = threading.RLock()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        tower: str | os.PathLike[str] | None = None,
        device: str | int | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int = BATCH_SIZE,
        num_workers: int | None = None,
        backend: Literal["torch", "onnx"] = "torch",
        file_name: str | None = None,
        **kwargs: Any,
    ) -> Ulip2Embedder:
        """Loads a model by the path of its folder, its name on the hub, or the name of a published checkpoint.

        A published checkpoint (`ulip2 releases` lists them) is fetched and converted on first use, and kept.

        Args:
            tower: image-text model to use instead of the one that the checkpoint embeds or names, e.g. as it moved.
            device: default: a GPU if there is one; with `device_map` among `kwargs`, where that puts the model.
            dtype: of the weights, as in transformers; default float32. Vectors are float32 in any case.
            backend: what runs the point encoder: "torch"; or "onnx", onnxruntime on the CPU, with the file that
                `ulip2 export` wrote into the model's `onnx/`.
            file_name: of that file; default: `model.onnx`.
            kwargs: of `from_pretrained`, such as `revision`, `token`, `cache_dir`, `trust_remote_code` or
                `attn_implementation`.

        Raises:
            FileNotFoundError: there is no such folder, nor such a model on the hub, or no ONNX file in it.
            ValueError: it is no model that embeds shapes, e.g. a captioner; the message says what it is.
        """
        name = os.fspath(name_or_path)
        if backend == "onnx":
            model, features = load_onnx_model(name, file_name, tower, device, dtype, **kwargs)
        elif backend == "torch" and file_name is None:
            model, features = load_shape_model(name, tower, device, dtype, **kwargs)
        else:
            raise ValueError(f"backend must be 'torch' or 'onnx', and only 'onnx' has a file_name; got {backend!r}.")
        return cls(model, features, name=name, batch_size=batch_size, num_workers=num_workers)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {type(self.model).__name__} on {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the encoder runs. Vectors are always returned on the CPU."""
        return execution_device(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the encoder's weights. Vectors are always float32."""
        return self.model.dtype

    @property
    def dim(self) -> int:
        """Width D of the shared space."""
        return self.model.config.projection_dim

    @property
    def tower_name(self) -> str:
        """What cards call the image-text model; it is not loaded for that."""
        if hasattr(self._tower, "encode_text"):
            return self._tower.name  # type: ignore[union-attr]
        name = getattr(self.model.config, "clip_name_or_path", None)
        if name is None:
            return self.name
        return name if is_hub_name(name) and not Path(name).is_dir() else Path(name).resolve().name

    # --- shapes ------------------------------------------------------------------------------------------------------

    @overload
    def embed_shapes(self, shapes: Any, *, on_error: Literal["raise"] = "raise", **options: Any) -> Tensor: ...

    @overload
    def embed_shapes(self, shapes: Any, *, on_error: Literal["skip"], **options: Any) -> ShapeEmbeddings: ...

    def embed_shapes(
        self, shapes: Any, *, on_error: Literal["raise", "skip"] = "raise", **options: Any
    ) -> Tensor | ShapeEmbeddings:
        """Embeds shapes.

        Args:
            shapes: N of them, each the path of a mesh or point file, an array (n, 3) or (n, 6) of xyz and rgb, or a
                mapping with `xyz` and perhaps `rgb` (uint8, or floats in [0, 1]) and `up_axis`; or a single one.
            on_error: "raise" the error of the first shape that cannot be used; or "skip" such shapes and tell of them.
            options: see `iter_shapes`.

        Returns:
            (N, D) float32. With `on_error="skip"` a `ShapeEmbeddings`: the M usable rows, their `ids` and `positions`,
            and `warnings` and `failures`. Warnings are logged in either case.

        Raises:
            ValueError: no shape at all; one that cannot be used (a `MeshError` with its reason for a file).
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}.")
        shapes = as_list(shapes)
        if len(shapes) == 0:
            raise ValueError("there is no shape to embed")
        rows: list[Tensor] = []
        result = ShapeEmbeddings(torch.empty(0))
        for record in self.iter_shapes(shapes, **options):
            for warning in record.warnings:
                logger.warning("%s: %s", record.id, warning)
            if record.warnings:
                result.warnings[record.id] = list(record.warnings)
            failure = record.failure
            if failure is not None and on_error == "skip":
                result.failures.append(failure)
            else:
                rows.append(record.vector())
                result.ids.append(record.id)
                result.positions.append(record.position)
        if on_error == "raise":
            return torch.stack(rows)  # (N, D)
        result.embeddings = torch.stack(rows) if rows else torch.empty(0, self._width(options.get("features")))
        return result

    def iter_shapes(
        self,
        shapes: Any,
        *,
        ids: Sequence[str] | None = None,
        features: str | None = None,
        root: str | os.PathLike[str] | None = None,
        up_axis: str | None = None,
        num_points: int | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
        num_workers: int | None = None,
        progress: bool | str | None = None,
        keep: bool = False,
    ) -> Iterator[ShapeRecord]:
        """A record for each shape in turn: its vector or the reason why there is none, and warnings.

        A batch gives what its shapes give one by one, up to rounding.

        Args:
            shapes: see `embed_shapes`; any sequence, of which worker processes read the files.
            ids: what to call them; default: paths, and for others their position.
            features: "embeds", of unit length in the shared space (default); "pooled", the encoder's own vector
                (default of a model without projection); "tokens", one vector per patch; "logits" of a classifier;
                "connector", what the connector of a captioner reads (its default).
            root: folder below which meshes may name other files (materials, textures); default: each mesh's own.
            up_axis: what points up in the shapes, "y", "z", "-z" or "x"; "auto" (default): what the format fixes, else
                the feature extractor's setting.
            num_points: drawn from each shape; default: the feature extractor's.
            seed: of that draw; default: the feature extractor's.
            batch_size, num_workers: default: the object's.
            progress: show a bar, or what it says; default: a bar on long lists.
            keep: hand on what was read of a sequence that reads shapes itself, as `shape` of each record.
        """
        check_evaluating(self.model)
        reading = self.reading(root=root, up_axis=up_axis, num_points=num_points, seed=seed)
        features = choose_features(self.model, features)
        return embed_each(
            as_list(shapes),
            reading,
            lambda clouds: self.encode(clouds, features),
            ids=ids,
            batch_size=self.batch_size if batch_size is None else batch_size,
            num_workers=self.num_workers if num_workers is None else num_workers,
            progress=progress,
            keep=keep,
        )

    def reading(
        self,
        *,
        root: str | os.PathLike[str] | None = None,
        up_axis: str | None = None,
        num_points: int | None = None,
        seed: int | None = None,
    ) -> Reading:
        """How this model reads shapes; called with a shape it gives the cloud (N, C) and its warnings."""
        return Reading.of(self.feature_extractor, root, up_axis, num_points, seed)

    @torch.no_grad()
    def encode(self, clouds: Sequence[np.ndarray | Tensor] | Tensor, features: str | None = None) -> Tensor:
        """What the model makes of prepared clouds (N, C) of any sizes, or of a batch (B, N, C).

        Args:
            features: see `iter_shapes`.

        Returns:
            (B, D), or (B, G, C) for "tokens", float32 on the CPU.
        """
        start = time.perf_counter()
        rows = in_batches(clouds, self.device, lambda values: encode_points(self.model, values, features))
        self.encoder_seconds += time.perf_counter() - start
        return rows

    def _width(self, features: str | None) -> int:
        return self.dim if choose_features(self.model, features) == "embeds" else 0

    # --- texts and images --------------------------------------------------------------------------------------------

    @property
    def tower(self) -> Tower:
        """The image-text model of the shared space, loaded on first use.

        Raises:
            ValueError: the model reads neither texts nor images.
        """
        with self._lock:
            if self._tower is None:
                self._tower = load_tower_of(self.model, self.name)
            elif not hasattr(self._tower, "encode_text"):
                self._tower = self._tower()
            return self._tower  # type: ignore[return-value]

    def embed_texts(
        self, texts: str | Sequence[str], *, batch_size: int | None = None, progress: bool = False
    ) -> Tensor:
        """Embeds texts: (n, D); a single text gives (1, D)."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise ValueError("there is no text to embed")
        return self._same_space(self.tower.encode_text(texts, batch_size, progress))

    def embed_images(self, images: Any, *, batch_size: int | None = None, progress: bool = False) -> Tensor:
        """Embeds images, each a path, a PIL image or a uint8 array (H, W, 3): (n, D); a single one gives (1, D)."""
        from PIL import Image

        from .data.images import open_image

        single = names_file(images) or isinstance(images, Image.Image) or getattr(images, "ndim", None) == 3
        images = [images] if single else list(images)
        if not images:
            raise ValueError("there is no image to embed")
        opened = [open_image(image) if names_file(image) else image for image in images]
        return self._same_space(self.tower.encode_images(opened, batch_size, progress))

    def embed_labels(self, labels: Sequence[str], templates: str | Sequence[str] | None = None) -> Tensor:
        """Embeds class names, each as the mean of its prompts: (K, D). A label is embedded once for given templates.

        Args:
            labels: names of the classes.
            templates: prompts with `{}` for the name, or the name of some; default: ULIP-2's 64, "modelnet40_64".
        """
        return self._same_space(
            self._labels(self.tower.encode_text, check_labels(labels), resolve_templates(templates))
        )

    def _same_space(self, embeds: Tensor) -> Tensor:
        if embeds.shape[-1] != self.dim:
            raise ValueError(
                f"The image-text tower {self.tower.name} makes vectors of {embeds.shape[-1]} channels, but the model "
                f"projects points to {self.dim}: it belongs to another tower."
            )
        return embeds

    # --- comparing ---------------------------------------------------------------------------------------------------

    def similarity(self, embeds: Any, others: Any) -> Tensor:
        """Cosines of vectors (N, D) and (M, D) of any of the three kinds: (N, M) float32."""
        rows, columns = as_rows(embeds), as_rows(others)
        if rows.shape[-1] != columns.shape[-1]:
            raise ValueError(f"vectors of {rows.shape[-1]} and of {columns.shape[-1]} numbers are of two spaces.")
        return F.normalize(rows, dim=-1) @ F.normalize(columns, dim=-1).T

    def classify(
        self,
        shapes: Any,
        labels: Sequence[str],
        *,
        templates: str | Sequence[str] | None = None,
        top_k: int | None = None,
        **options: Any,
    ) -> list[Any]:
        """Ranks labels by how well they fit: `[{"score", "label"}, …]`, best first; a list of those for a list.

        Scores are the softmax over the labels of cosine times the model's logit scale, and add up to 1.

        Args:
            shapes: one or several, see `embed_shapes`.
            labels, templates: see `embed_labels`.
            top_k: how many labels to return; default: all.
            options: see `embed_shapes`. With `on_error="skip"` a shape that cannot be used is logged, and gets None.
        """
        self.embed_labels(labels, templates)  # what is wrong with them is said before any shape is read
        single, shapes = is_single(shapes), as_list(shapes)
        found = self.embed_shapes(shapes, **options)
        ranked: list[Any] = self.rank(found, labels, templates=templates, top_k=top_k)
        if isinstance(found, ShapeEmbeddings):
            for failure in found.failures:
                logger.warning("%s", failure)
            usable = dict(zip(found.positions, ranked, strict=True))
            ranked = [usable.get(position) for position in range(len(shapes))]
        return ranked[0] if single else ranked

    def rank(
        self,
        embeds: Any,
        labels: Sequence[str],
        *,
        templates: str | Sequence[str] | None = None,
        top_k: int | None = None,
    ) -> list[list[dict[str, Any]]]:
        """As `classify`, for shapes that are embedded already, (N, D)."""
        check_top_k(top_k)
        logits = self.logits(embeds, self.embed_labels(labels, templates))  # (N, K)
        return [ranked(row, list(labels), top_k) for row in logits]

    def logits(self, embeds: Any, label_embeds: Any) -> Tensor:
        """Cosines times the model's logit scale, (N, K)."""
        return self.model.logit_scale.detach().float().exp().cpu() * self.similarity(embeds, label_embeds)


def as_rows(embeds: Any) -> Tensor:
    """Vectors, or one alone, as a finite matrix (N, D) float32 on the CPU."""
    if isinstance(embeds, ShapeEmbeddings):
        embeds = embeds.embeddings
    return finite(torch.atleast_2d(torch.as_tensor(embeds).detach().cpu()), "the vectors")
