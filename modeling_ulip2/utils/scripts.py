"""How the scripts of this repository end: quietly, or with one line that says what was wrong.

    if __name__ == "__main__":
        run_main(main)

What goes wrong with files, settings and missing packages is told in a sentence, with exit status 2, as the command
`ulip2` does. `--traceback` anywhere on the command line, or ULIP2_TRACEBACK=1 in the environment, shows where it
happened. Anything else is a fault of ours, and its traceback is shown.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

TRACEBACK_OPTION, TRACEBACK_VARIABLE = "--traceback", "ULIP2_TRACEBACK"
BAD_INPUT, STOPPED = 2, 130  # exit statuses


# What goes wrong with files and settings: told in a sentence, without a traceback.
EXPECTED_ERRORS = (ValueError, OSError, ImportError, MemoryError, FloatingPointError)


def is_expected(error: BaseException) -> bool:
    """Is this what goes wrong with files, settings, packages, or a training that cannot learn?"""
    ours = type(error).__module__.partition(".")[0] == "modeling_ulip2"  # our own kinds are sentences for people
    return isinstance(error, EXPECTED_ERRORS) or (isinstance(error, RuntimeError) and ours)


def run_main(main: Callable[[], Any], name: str | None = None) -> NoReturn:
    """Runs `main` and ends the process; where `main` returns an integer, that is the exit status.

    Args:
        main: reads `sys.argv` itself.
        name: stands before the message; default: the name of the script.
    """
    wanted = TRACEBACK_OPTION in sys.argv or os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0")
    sys.argv = [word for word in sys.argv if word != TRACEBACK_OPTION]
    name = name or Path(sys.argv[0]).name
    try:
        status = main()
    except KeyboardInterrupt:
        if wanted:
            raise
        print(f"{name}: stopped; the same command goes on where it can", file=sys.stderr)
        sys.exit(STOPPED)
    except Exception as error:
        if wanted or not is_expected(error):
            raise
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    sys.exit(status if isinstance(status, int) else 0)


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
