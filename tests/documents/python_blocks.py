"""Python blocks: what they promise in their comments, and whether they keep it.

model(**inputs).logits.shape  # => torch.Size([1, 2])      what the expression shows
shapes = embed(files)  # (3, 384), unit length             the shape of what is assigned
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
import tokenize
from dataclasses import dataclass
from typing import Any

from .blocks import Block
from .outputs import agrees

_SHOWS = re.compile(r"#\s*=>\s*(.*)$")
_SHAPE = re.compile(r"#\s*\((\d+(?:, ?\d+)*,?)\)(?:[,;:].*)?$")


@dataclass
class Promise:
    """What a comment says of the statement that ends on its line."""

    line: int
    shows: str | None
    shape: tuple[int, ...] | None


def promises(code: str) -> dict[int, Promise]:
    """Line -> what its comment promises."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type != tokenize.COMMENT:
            continue
        line = token.start[0]
        if shows := _SHOWS.match(token.string):
            found[line] = Promise(line, shows[1].strip(), None)
        elif shape := _SHAPE.match(token.string):
            sizes = tuple(int(size) for size in shape[1].split(",") if size.strip())
            found[line] = Promise(line, None, sizes)
    return found


def run_block(block: Block, names: dict[str, Any]) -> None:
    """Runs a block statement by statement.

    Raises:
        AssertionError: it does not show what the document says.
    """
    said = promises(block.code)
    kept = set()
    printed = io.StringIO()
    for statement in ast.parse(block.code).body:
        end = statement.end_lineno or statement.lineno
        promise = said.get(end)
        shown, value = run_statement(statement, block, names, printed)
        if promise is None:
            continue
        kept.add(end)
        where = f"{block.document}:{block.line + end}"
        if promise.shape is not None:
            assert tuple(value.shape) == promise.shape, f"{where}: the shape is {tuple(value.shape)}"
        elif promise.shows is not None:
            assert agrees(promise.shows, shown), f"{where} promises\n  {promise.shows}\nand shows\n  {shown}"
    forgotten = sorted(set(said) - kept)
    assert not forgotten, f"{block.place}: no statement ends in lines {forgotten} of the block, where comments promise"
    if block.output is not None:
        assert agrees(block.output, printed.getvalue()), (
            f"{block.place} promises\n{block.output}\nand prints\n{printed.getvalue()}"
        )


def run_statement(statement: ast.stmt, block: Block, names: dict[str, Any], printed: io.StringIO) -> tuple[str, Any]:
    """What a statement shows (its own prints, or else its value) and the value that it has or assigns."""
    ast.increment_lineno(statement, block.line)
    own = io.StringIO()
    value = None
    with contextlib.redirect_stdout(own):
        if isinstance(statement, ast.Expr):
            value = eval(compile(ast.Expression(statement.value), block.document, "eval"), names)
        else:
            exec(compile(ast.Module([statement], []), block.document, "exec"), names)
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                value = names[statement.targets[0].id]
    printed.write(own.getvalue())
    return own.getvalue() or repr(value), value


def check_block(block: Block) -> None:
    """Checks a block that cannot run here: it parses, and what it imports of this project exists.

    Raises:
        AssertionError: a module or name does not exist.
        SyntaxError: it is no Python.
    """
    tree = ast.parse(block.code, filename=block.place)
    promises(block.code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "modeling_ulip2":
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or _is_module(f"{node.module}.{alias.name}"), (
                    f"{block.place}: {node.module} has no {alias.name}"
                )
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "modeling_ulip2":
                    importlib.import_module(alias.name)


def _is_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True
