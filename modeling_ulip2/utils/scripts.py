"""How the scripts of this repository end: quietly, or with one line that says what was wrong.

    if __name__ == "__main__":
        run_main(main)

Errors of files, settings and missing packages end a script with one sentence and exit status 2, as they end `ulip2`;
so does `sys.exit("...")`. `--traceback` anywhere on the command line, or
ULIP2_TRACEBACK=1 in the environment, shows where it happened. Anything else is a fault of ours, and its traceback is
shown. `script_imports` does the same for what a script imports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from .packages import missing_package

TRACEBACK_OPTION, TRACEBACK_VARIABLE = "--traceback", "ULIP2_TRACEBACK"
# Exit statuses. BAD_INPUT also says that of several things not one could be done.
DONE, BAD_INPUT, SOME_FAILED, STOPPED = 0, 2, 3, 130

# Errors of files and settings, which are printed as one sentence without a traceback.
EXPECTED_ERRORS = (ValueError, OSError, ImportError, MemoryError, FloatingPointError)


def is_expected(error: BaseException) -> bool:
    """Is this what goes wrong with files, settings, packages, or a training that cannot learn?"""
    ours = type(error).__module__.partition(".")[0] == "modeling_ulip2"  # our own kinds are sentences for people
    return isinstance(error, EXPECTED_ERRORS) or (isinstance(error, RuntimeError) and ours)


def status(failed: int, total: int) -> int:
    """The exit status of what was done for each of `total` things."""
    if not failed:
        return DONE
    return BAD_INPUT if failed == total else SOME_FAILED


def run_main(main: Callable[[], Any], name: str | None = None) -> NoReturn:
    """Runs `main` and ends the process; where `main` returns an integer, that is the exit status.

    Args:
        main: reads `sys.argv` itself.
        name: stands before the message; default: the name of the script.
    """
    wanted = traceback_is_wanted()
    sys.argv = [word for word in sys.argv if word != TRACEBACK_OPTION]
    sys.exit(exit_status(main, name or script_name(), wanted))


def exit_status(main: Callable[[], Any], name: str, traceback: bool = False) -> int:
    """Runs `main` and returns the exit status; an expected error is printed in one line.

    Args:
        main: what it returns, if it is an integer, is the status.
        name: stands before the message.
        traceback: whether what goes wrong is raised instead.
    """
    try:
        result = main()
    except KeyboardInterrupt:
        if traceback:
            raise
        print(f"{name}: stopped; the same command goes on where it can", file=sys.stderr)
        return STOPPED
    except SystemExit as ended:
        if not isinstance(ended.code, str):  # argparse's, or a status
            raise
        if traceback and ended.__context__ is not None:
            raise ended.__context__ from None
        print(ended.code.strip(), file=sys.stderr)
        return BAD_INPUT
    except Exception as error:
        if traceback or not is_expected(error):
            raise
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    return result if isinstance(result, int) else DONE


def traceback_is_wanted() -> bool:
    return TRACEBACK_OPTION in sys.argv or os.environ.get(TRACEBACK_VARIABLE, "") not in ("", "0")


def script_name() -> str:
    return Path(sys.argv[0]).name


def one_line(error: BaseException) -> str:
    """An exception's message on one line, with what to install if a package is missing; its type if it has none."""
    said = " ".join(str(error).split()) or type(error).__name__
    advice = missing_package(error) if isinstance(error, ImportError) else None
    return f"{said}; {advice}" if advice else said
