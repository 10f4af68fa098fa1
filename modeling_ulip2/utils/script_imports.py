"""A script imports this first, so that a missing package of an extra ends it with one line and exit status 2.

    import modeling_ulip2.utils.script_imports  # noqa: F401

    # isort: split

A script's imports run before its `run_main`, which handles all other errors in this way.
"""

from __future__ import annotations

import sys
from types import TracebackType

from .packages import tells_what_to_install
from .scripts import BAD_INPUT, one_line, script_name, traceback_is_wanted


def tell_missing_package(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As `sys.excepthook`: one line for a missing package of an extra, a traceback for anything else."""
    if not isinstance(error, ImportError) or not tells_what_to_install(error) or traceback_is_wanted():
        sys.__excepthook__(kind, error, trace)
        return
    print(f"{script_name()}: {one_line(error)}", file=sys.stderr)
    sys.exit(BAD_INPUT)


sys.excepthook = tell_missing_package
