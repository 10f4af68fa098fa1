"""Whether what a program printed is what its document says."""

from __future__ import annotations

import re

_NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?"
_PARTS = re.compile(rf"(…|{_NUMBER}|\s+)", re.IGNORECASE)


def agrees(said: str, printed: str) -> bool:
    """Compares text with what a document says of it.

    `…` stands for anything, any blank for any other, and a number with decimals for numbers that differ by at most one
    in its last digit, since processors round differently. Whole numbers must be equal.
    """
    numbers: list[str] = []
    pattern = ""
    for part in _PARTS.split(said.strip()):
        if part == "…":
            pattern += ".*?"
        elif not part:
            continue
        elif part.isspace():
            pattern += r"\s+"
        elif re.fullmatch(_NUMBER, part, re.IGNORECASE):
            pattern += f"({_NUMBER})"
            numbers.append(part)
        else:
            pattern += re.escape(part)
    found = re.fullmatch(pattern, printed.strip(), re.DOTALL | re.IGNORECASE)
    return found is not None and all(map(_equal, numbers, found.groups()))


def _equal(said: str, printed: str) -> bool:
    said, printed = said.replace(",", "").lower(), printed.replace(",", "").lower()
    mantissa, _, exponent = said.partition("e")
    if "." not in mantissa:
        return float(said) == float(printed)
    last = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(said) - float(printed)) <= 1.01 * last
