"""What the things in a home are called: one word of a small vocabulary for each name of the catalog."""

from __future__ import annotations

import re

OTHER = "other"
# The names of Sweet Home 3D's example homes and of its catalog, in lower case.
_NAMES = {
    "armchair": ["armchair"],
    "bathtub": ["bath", "fitted bath", "bathtub"],
    "beam": ["beam"],
    "bed": [
        "bed", "bed 140x190", "bed 90x190", "bunk bed", "corner bunk bed", "loft bed 140x190", "double bed",
        "single bed",
    ],
    "bench": ["bank", "bench"],
    "bookcase": ["bookcase", "filled bookcase", "bookshelf"],
    "cabinet": ["cabinet", "kitchen cabinet", "kitchen upper cabinet", "glass door cabinet"],
    "chair": ["chair", "office chair"],
    "coffee table": ["coffee table"],
    "computer": ["computer workstation", "computer", "laptop"],
    "counter": ["bar", "top", "counter", "worktop", "countertop"],
    "crib": ["crib"],
    "curtain": ["curtain", "curtains", "blind"],
    "desk": ["desk"],
    "dishwasher": ["dishwasher"],
    "door": [
        "door", "open door", "front door", "rounded door", "double door", "garage door", "sliding doors",
        "sliding door",
    ],
    "door frame": ["door frame", "round door frame"],
    "dresser": ["chest", "dresser", "chest of drawers"],
    "fireplace": ["fireplace"],
    "flowers": ["flowers"],
    "hatch": ["service hatch"],
    "lamp": [
        "floor uplight", "wall uplight", "pendant lamp", "spotlight", "work lamp", "lamp", "floor lamp", "desk lamp",
    ],
    "mirror": ["mirror"],
    "nightstand": ["bedside table", "nightstand"],
    "oven": ["oven"],
    "person": ["mannequin"],
    "piano": ["piano"],
    "picture": ["frame", "picture", "painting"],
    "pipe": ["pipe"],
    "plant": ["plant", "potted plant"],
    "radiator": ["electric radiator", "hot water radiator", "radiator"],
    "railing": ["railing"],
    "ramp": ["slope", "ramp"],
    "range hood": ["hood", "range hood"],
    "refrigerator": ["fridge", "fridge & freezer", "refrigerator"],
    "roof": ["roof", "main roof", "garage roof", "roof part"],
    "rug": ["carpet", "rug"],
    "shelf": ["shelf", "shelves"],
    "shower": ["shower"],
    "sink": ["sink", "washbasin", "washbasin with cabinet"],
    "sofa": ["sofa", "corner sofa", "couch"],
    "stairs": ["staircase", "curve staircase", "spiral staircase", "stairs"],
    "stool": ["stool"],
    "stove": ["cooker", "stove"],
    "table": ["table", "round table", "square table", "table and chairs"],
    "television": ["flat tv", "tv", "television"],
    "toilet": ["toilet unit", "toilet", "wc"],
    "tv stand": ["tv unit", "tv table", "tv stand"],
    "wardrobe": ["wardrobe"],
    "washing machine": ["clothes washer", "washing machine"],
    "window": [
        "window", "small window", "fixed window", "double window", "double small window", "double-hung window",
        "french window", "double french window", "slider window", "half round window", "round window",
        "kitchen windows",
    ],
    OTHER: ["box", "border", "cylinder", "pole", "triangle"],
}  # fmt: skip
_WORD_OF = {name: word for word, names in _NAMES.items() for name in names}
# Names under which plain bodies are parts of a group rather than things.
_PARTS = {*_NAMES[OTHER], "beam", "roof part", "slope", "top", ""}
_BODIES = {"eTeks#texturableBox", "eTeks#texturableCylinder", "eTeks#texturableTriangle"}
WORDS: tuple[str, ...] = ("wall", "floor", "ceiling", *sorted(word for word in _NAMES if word != OTHER), OTHER)


def word_of(name: str, door_or_window: bool = False) -> str:
    """The word for a name of the catalog: the table's; for other names the last word of the table that is in it.

    A name that holds none is its own word, in lower case; a door or window without a name of its own is an "other".
    """
    plain = " ".join(name.lower().split())
    if plain in _WORD_OF:
        return _WORD_OF[plain]
    inside = [
        (match.end(), len(known), known)
        for known in _WORD_OF.keys() - _PARTS
        if (match := re.search(rf"(?<![a-z]){re.escape(known)}s?(?![a-z])", plain))
    ]
    if inside:
        return _WORD_OF[max(inside)[2]]
    return plain if plain and not door_or_window else OTHER


def is_part(catalog_id: str, name: str) -> bool:
    """Whether a piece is a plain body by which people build other things, not a thing with a name."""
    plain = name.lower()
    return plain in _PARTS and (catalog_id in _BODIES or not catalog_id)
