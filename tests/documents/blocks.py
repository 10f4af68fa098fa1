"""The code blocks of the documents, with what each one needs and what it promises to print.

A comment before a block says what it needs; without one it needs nothing and runs in every test run:

    <!-- needs: quickstart -->
    ```python
    ...
    ```

A block `text` with the title "Output" is what the block before it prints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]

NEEDS = {
    "nothing": "the repository with its checkpoint and shapes; runs in every test run",
    "notebook": "the cells before it",
    "quickstart": "what `make quickstart` leaves; runs against a small one in a slow test",
    "yours": "the reader's own files, model or language model",
    "benchmark": "files of the papers' benchmarks, which their authors give out",
    "network": "the Hugging Face Hub, or a package index",
    "browser": "a browser, or a server that goes on running",
    "gpu": "a GPU, or several",
    "cluster": "several machines",
    "time": "more time than a test has",
}
# Blocks of these are data, not programs.
DATA = {"json", "yaml", "csv", "bibtex", "text", "ini", "markdown", "html"}
OUTPUT = re.compile(r'^text\s+title="Output"$')
_NEEDS = re.compile(r"<!--\s*needs:\s*(\w+)\s*-->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    line: int
    language: str
    code: str
    needs: str
    output: str | None = None

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[Path]:
    """Every document that people read in the repository or on the site."""
    single = [path for path in ROOT.glob("*.md") if path.name not in ("CHANGELOG.md", "CODE_OF_CONDUCT.md")]
    folders = (ROOT / "docs", ROOT / "examples", ROOT / "dataset_scripts", ROOT / "spaces_demo", ROOT / "checkpoints")
    return sorted([*single, *(path for folder in folders for path in folder.rglob("*.md"))])


def read_blocks(path: Path) -> list[Block]:
    """The blocks of a document: Markdown, or a notebook."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return list(notebook_blocks(text, name) if path.suffix == ".ipynb" else markdown_blocks(text, name))


def markdown_blocks(text: str, name: str) -> Iterator[Block]:
    """
    Raises:
        ValueError: a marker that is not known, or an output that follows no program.
    """
    tokens = MarkdownIt().parse(without_front_matter(text))
    needs = "nothing"
    pending: Block | None = None
    for token in tokens:
        if token.type == "html_block" and (marker := _NEEDS.search(token.content.strip())):
            needs = marker[1]
            if needs not in NEEDS:
                raise ValueError(f"{name}: a block cannot need {needs!r}; known are {', '.join(NEEDS)}")
            continue
        if token.type != "fence":
            continue
        info = token.info.strip()
        if OUTPUT.match(info):
            if pending is None:
                raise ValueError(f"{name}:{token.map[0] + 1}: an output must follow the block that prints it")
            yield Block(pending.document, pending.line, pending.language, pending.code, pending.needs, token.content)
            pending = None
            continue
        if pending is not None:
            yield pending
        line = (token.map or [0])[0] + 1
        pending = Block(name, line, info.split()[0] if info else "", token.content, needs)
        needs = "nothing"
    if pending is not None:
        yield pending


def notebook_blocks(text: str, name: str) -> Iterator[Block]:
    """The cells of a notebook: commands behind `!`, Python, and the blocks of its texts.

    What cells print is compared where the notebook runs.
    """
    for index, cell in enumerate(json.loads(text)["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield from markdown_blocks(source, f"{name}, cell {index}")
        elif cell["cell_type"] == "code":
            is_shell = all(line.startswith("!") for line in source.splitlines())
            language, code = ("bash", source.replace("!", "", 1)) if is_shell else ("python", source)
            yield Block(name, index, language, code, "notebook")


def without_front_matter(text: str) -> str:
    """The YAML between `---` lines at the start as empty lines, so that line numbers stay."""
    found = re.match(r"---\n.*?\n---\n", text, flags=re.DOTALL)
    return "\n" * found[0].count("\n") + text[found.end() :] if found else text
