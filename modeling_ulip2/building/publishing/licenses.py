"""What a card has to say of licenses before its dataset is published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modeling_ulip2.data.card import UNKNOWN_LICENSE


def license_problems(data: Mapping[str, Any]) -> list[str]:
    """What the YAML of a card lacks, in sentences."""
    licenses = data.get("license") or []
    licenses = [licenses] if isinstance(licenses, str) else licenses
    if licenses and UNKNOWN_LICENSE not in licenses:
        return []
    which = "names no license" if not licenses else f"has shapes whose license is {UNKNOWN_LICENSE!r}"
    return [f"the card's YAML {which}: find it out and name it"]
