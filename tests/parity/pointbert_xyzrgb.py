"""`pointbert_xyzrgb/<cfg>`: see `tests/parity/pointbert.py`."""

from tests.parity.pointbert import cases, check

__all__ = ["cases", "check"]
