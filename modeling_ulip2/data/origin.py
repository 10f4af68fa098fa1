"""Where rows come from and under which licenses they stand, as far as the rows tell: for the cards of trainings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_ADDRESS = "https://huggingface.co/datasets/"
# Licenses as the hub spells them, which collections spell in many ways.
_SPELLINGS = {
    "cc0": "cc0-1.0",
    "cc0-1.0": "cc0-1.0",
    "public-domain": "cc0-1.0",
    "cc-by": "cc-by-4.0",
    **{name: name for name in ("cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-4.0")},
    **{name: name for name in ("cc-by-nc-sa-4.0", "cc-by-nd-4.0", "odc-by", "mit", "apache-2.0", "bsd-3-clause")},
    **{name: name for name in ("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "unknown")},
}
# For several licenses, and for one that the hub has no name for; it wants a name and a link then.
OTHER_LICENSE = "other"


@dataclass
class DataOrigin:
    """Where the rows of a dataset come from, and their licenses.

    datasets: names of their repositories on the hub; empty: they come from a folder.
    licenses: how many rows stand under which license, in the words of their source.
    """

    datasets: list[str] = field(default_factory=list)
    licenses: Mapping[str, int] = field(default_factory=dict)

    @property
    def license(self) -> str | None:
        """The one license of all rows as the hub spells it, `OTHER_LICENSE`, or None where nothing is told."""
        if not self.licenses:
            return None
        spelled = {_SPELLINGS.get(re.sub(r"[\s_]+", "-", name.strip().lower())) for name in self.licenses}
        found = spelled.pop()
        return found if found is not None and not spelled else OTHER_LICENSE

    def sentence(self) -> str:
        """What a card says of it."""
        if not self.licenses:
            return ""
        listed = ", ".join(f"{name or 'unknown'} ({count:,})" for name, count in sorted(self.licenses.items()))
        return f"Licenses of the training shapes: {listed}. They bind whoever uses the data; read them there."


def dataset_address(name: str) -> str:
    """What the information of a dataset has as its homepage where it was read from the hub."""
    return f"{_ADDRESS}{name}"


def origin_of(dataset: Any) -> DataOrigin:
    """The origin of a `Dataset` or `IterableDataset`; of a stream the licenses are not known."""
    homepage = getattr(getattr(dataset, "info", None), "homepage", None) or ""
    names = [homepage.removeprefix(_ADDRESS)] if homepage.startswith(_ADDRESS) else []
    columns = getattr(dataset, "column_names", None) or []
    licenses = Counter(dataset["license"]) if hasattr(dataset, "num_rows") and "license" in columns else {}
    return DataOrigin(names, {str(name or ""): count for name, count in licenses.items()})
