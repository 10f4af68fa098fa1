"""Parsers of command lines."""

from __future__ import annotations

import argparse
from typing import NoReturn

from .scripts import BAD_INPUT


class OneLineParser(argparse.ArgumentParser):
    """Tells a mistake in one line, as every other mistake is told."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")
