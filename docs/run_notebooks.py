"""Runs notebooks of the documentation and stores what their cells print and draw.

    python docs/run_notebooks.py docs/tutorials/search.ipynb docs/tutorials/classify.ipynb

Run it after a change of a notebook or of `checkpoints/`. A notebook is written when all of its cells have run.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

TIMEOUT = 1800  # seconds for a cell
_TERMINAL, _BAR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]"), re.compile(r"\d%\|")


def run_notebook(path: Path, folder: Path | None = None) -> Any:
    """The notebook with new outputs; nothing is written.

    Args:
        path: of the notebook.
        folder: where it runs; default: where it lies.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbclient
    import nbformat

    # the commands of this installation, and no progress bars
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ.setdefault("TQDM_DISABLE", "1")
    book = nbformat.read(path, as_version=4)
    options = {"resources": {"metadata": {"path": str(folder or path.parent)}}, "record_timing": False}
    nbclient.NotebookClient(book, timeout=TIMEOUT, **options).execute()
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = tidy(cell.outputs)
            cell.execution_count = None
    return book


def tidy(outputs: list[Any]) -> list[Any]:
    """What a reader wants of a cell's outputs: one text, without progress bars and the terminal's signs."""
    kept: list[Any] = []
    for output in outputs:
        if output.get("name") == "stderr":
            continue
        if "execution_count" in output:
            output.execution_count = None
        if output.output_type == "stream" and kept and kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            lines = re.split(r"[\r\n]+", _TERMINAL.sub("", output.text))
            output.text = "".join(f"{line.rstrip()}\n" for line in lines if line.strip() and not _BAR.search(line))
    return [output for output in kept if output.get("text") != ""]


def main(argv: list[str] | None = None) -> None:
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path)
    for path in parser.parse_args(argv).notebooks:
        book = run_notebook(path)
        # as they were: readers of older notebooks know neither, and no diff shows them
        book.metadata = {"kernelspec": book.metadata.kernelspec, "language_info": {"name": "python"}}
        nbformat.write(book, path)
        print(path)


if __name__ == "__main__":
    main()
