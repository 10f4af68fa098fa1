"""`python -m modeling_ulip2.cli` is `ulip2`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
