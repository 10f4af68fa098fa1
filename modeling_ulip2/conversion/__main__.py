"""`python -m modeling_ulip2.conversion` is `ulip2 convert`."""

from __future__ import annotations

import sys

from modeling_ulip2.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
