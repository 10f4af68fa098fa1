"""What becomes of shapes that are embedded: a record for each, with its vector or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from modeling_ulip2.geometry.errors import MeshError

# What one bad shape may raise while it is read and prepared; anything else is a fault of the program.
SHAPE_ERRORS = (ValueError, OSError, MemoryError)


@dataclass(frozen=True)
class ShapeFailure:
    """A shape that cannot be used.

    Attributes:
        id: of the shape: its path, or its place in the list.
        reason: one of `geometry.errors.REASONS`, or "unusable".
        message: a sentence, without the path.
    """

    id: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.id}: {self.message}"

    @classmethod
    def of(cls, name: str, error: BaseException) -> ShapeFailure:
        if isinstance(error, MeshError):  # whose `str` begins with the path
            return cls(name, error.reason, str(error.args[0]))
        if isinstance(error, OSError) and error.strerror:
            return cls(name, "missing", error.strerror)
        return cls(name, "unusable", str(error) or type(error).__name__)


@dataclass(frozen=True)
class ShapeRecord:
    """What became of one shape.

    Attributes:
        position: in the list of shapes.
        id: its path, or its position.
        embed: (D,) float32 on the CPU, or (G, C) tokens; None if the shape cannot be used.
        warnings: what had to be left out or guessed, one sentence each.
        error: why it cannot be used.
        shape: what was read, if it was asked for and can be used.
    """

    position: int
    id: str
    embed: Tensor | None
    warnings: tuple[str, ...] = ()
    error: Exception | None = None
    shape: Any = None

    @property
    def failure(self) -> ShapeFailure | None:
        """The reason in a form for tables and messages; None if the shape can be used."""
        return None if self.error is None else ShapeFailure.of(self.id, self.error)

    def vector(self) -> Tensor:
        """`embed`.

        Raises:
            MeshError, ValueError, OSError: the shape cannot be used; the message names it.
        """
        error = self.error
        if isinstance(error, MeshError) and error.path is None:
            raise MeshError(error.reason, f"the shape {self.id!r} cannot be used: {error}") from error
        if type(error) is ValueError:
            raise ValueError(f"the shape {self.id!r} cannot be prepared: {error}") from error
        if error is not None:
            raise error
        assert self.embed is not None
        return self.embed


@dataclass
class ShapeEmbeddings:
    """The usable ones of a list of shapes, and what is to be said about all of them.

    Attributes:
        embeddings: (M, D) float32 on the CPU.
        ids: of the M rows.
        positions: of the M rows in the list that was given.
        warnings: of shapes that have some, by id.
        failures: the shapes that cannot be used, with their reasons.
    """

    embeddings: Tensor
    ids: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    failures: list[ShapeFailure] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.embeddings)
