"""Configuration of locked encoders with a learned linear map between them."""

from __future__ import annotations

from .configuration_conse import ConseConfig

# Where the weights of the locked encoders come from: the checkpoint, or the packages that `towers.conse` installs.
IN_CHECKPOINT, IN_PACKAGES = "checkpoint", "packages"


class LinearLitConfig(ConseConfig):
    """Configuration of [`LinearLitModel`]; beside it, all of [`ConseConfig`].

    Args:
        hidden_dim: width F of what the classifier's last layer sees, which the map reads.
        map_share: weight of the mapped embedding in an image embedding; the rest is ConSE's. Both have unit length.
        locked_weights: "checkpoint": the checkpoint holds all weights. "packages": it holds the map and the class
            embeddings alone, a megabyte or two, and the locked encoders come from the Python packages of the extra
            `offline`.
    """

    model_type = "linear_lit"

    hidden_dim: int = 1280
    map_share: float = 1.0
    locked_weights: str = IN_CHECKPOINT

    def __post_init__(self, **kwargs: object) -> None:
        if not 0 <= self.map_share <= 1:
            raise ValueError(f"map_share must lie in [0, 1], got {self.map_share}")
        if self.locked_weights not in (IN_CHECKPOINT, IN_PACKAGES):
            raise ValueError(
                f"locked_weights must be {IN_CHECKPOINT!r} or {IN_PACKAGES!r}, got {self.locked_weights!r}"
            )
        super().__post_init__(**kwargs)


__all__ = ["IN_CHECKPOINT", "IN_PACKAGES", "LinearLitConfig"]
