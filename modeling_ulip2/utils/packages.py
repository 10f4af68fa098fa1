"""Optional packages, asked for where they are used."""

import importlib
from types import ModuleType


def require_package(module: str, extra: str) -> ModuleType:
    """Imports a module of an optional extra.

    Raises:
        ImportError: it does not import; the message names the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{module} does not import ({error}); install it with: pip install "modeling-ulip2[{extra}]"'
        ) from error
