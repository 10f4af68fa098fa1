"""Words that compete with those that are asked for, so that what is none of them gets no name."""

from __future__ import annotations

from collections.abc import Sequence

# Of what proposals hold beside objects: parts of the room, and parts and heaps of things. Published as the default, so
# that results can be compared. On the first two homes of Sweet Home 3D as seen by a walk, a dozen more words (such as
# "object" and "box") left fewer objects with a name and no more of them with the right one; without any, more parts of
# things had a name.
OTHER_WORDS: tuple[str, ...] = (
    "wall",
    "floor",
    "ceiling",
    "column",
    "window frame",
    "corner of a room",
    "wooden board",
    "metal bar",
    "fragment",
    "pile of things",
)


def other_than(labels: Sequence[str], words: Sequence[str] = OTHER_WORDS) -> tuple[str, ...]:
    """The words that are not asked for themselves, whatever their case."""
    asked = {label.strip().lower() for label in labels}
    return tuple(word for word in words if word.strip().lower() not in asked)
