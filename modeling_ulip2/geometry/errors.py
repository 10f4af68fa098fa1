"""The one error of this sub-package: a 3D file that cannot be used, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

Reason = Literal[
    "missing",  # the file, or one that it names, does not exist
    "not_downloaded",  # a Git LFS pointer or a server's error page in the file's place
    "unsupported",  # not a format, or not a feature of one, that is read here
    "corrupt",  # the content contradicts the format or itself
    "truncated",  # the file ends before the content that it announces
    "empty",  # no triangle (mesh) or no point (cloud)
    "zero_area",  # triangles, but no surface
    "non_finite",  # NaN or infinite coordinates or colors
    "too_large",  # more bytes than max_bytes, alone or with the files that it names
    "too_many_faces",  # more triangles than max_faces, counted from the header where there is one
    "too_many_points",  # more points than max_points
    "external_uri",  # names a file outside the root, or lies there itself
    "draco",  # Draco-compressed, and DracoPy is missing or fails
    "texture_missing",  # names an image that does not exist
    "texture_corrupt",  # an image that cannot be decoded
    "texture_too_large",  # an image of too many pixels, refused before decoding
]
REASONS: tuple[str, ...] = get_args(Reason)


class MeshError(ValueError):
    """A 3D file that cannot be used.

    Attributes:
        reason: one of `REASONS`, for statistics and for a batch job's error table.
        path: the file, where known.
    """

    def __init__(self, reason: Reason, message: str, path: str | Path | None = None) -> None:
        if reason not in REASONS:
            raise TypeError(f"unknown reason {reason!r}; one of {REASONS}")
        super().__init__(message)
        self.reason: Reason = reason
        self.path = None if path is None else Path(path)

    def __str__(self) -> str:
        message = super().__str__()
        return message if self.path is None else f"{self.path}: {message}"

    def __reduce__(self):  # keeps reason and path when a worker process hands the error back
        return type(self), (self.reason, super().__str__(), self.path)
