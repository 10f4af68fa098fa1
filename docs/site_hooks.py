"""What MkDocs makes of this repository beside the pages of `docs/`: pages that must never go stale are made here.

- the commands and scripts, from the parsers that they build themselves;
- tutorials that are notebooks;
- the READMEs of the folders and the changelog.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from docs.program_parsers import command_parser, commands, help_text, program_parser, scripts  # noqa: E402

# Documents that stand outside `docs/`, and the page that each becomes.
OUTSIDE = {
    "CHANGELOG.md": "changes.md",
    "examples/README.md": "examples.md",
    "dataset_scripts/README.md": "making_triplets.md",
    "spaces_demo/README.md": "tutorials/demo.md",
    "CONTRIBUTING.md": "contributing.md",
}
SHIM = "https://unpkg.com/iframe-worker/shim"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Pages that `nav` forgets come last, so that none is lost."""
    listed = str(config.nav)
    docs = Path(config.docs_dir)
    pages = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    if forgotten := [page for page in pages if page not in listed]:
        config.nav = [*(config.nav or []), {"More": forgotten}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    docs = Path(config.docs_dir)
    made = {"reference/commands.md": commands_page(), "reference/scripts.md": scripts_page()}
    for notebook in sorted(docs.rglob("*.ipynb")):
        page = notebook.relative_to(docs).with_suffix(".md").as_posix()
        made[page] = linked(notebook_page(notebook), f"docs/{page}", page)
    pictures: set[str] = set()
    for source, page in OUTSIDE.items():
        if (ROOT / source).exists():
            made[page] = outside_page(source, page, pictures)
    for page, text in made.items():
        add(files, File.generated(config, page, content=text))
    for picture in sorted(pictures):
        add(files, File.generated(config, picture, abs_src_path=str(ROOT / picture)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Tables that the package itself knows, and links that lead to pages of other documents."""
    markdown = re.sub(r"<!-- table: ([\w -]+) -->", lambda found: TABLES[found[1]](), markdown)
    if page.file.generated_by is not None:
        return markdown
    return linked(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def on_post_page(output: str, page: Page, **_: object) -> str:
    """What the theme would load from another server to search from `file://` lies beside the pages."""
    return output.replace(SHIM, relative("assets/iframe-worker.js", page.file.dest_uri))


def published_zero_shot() -> str:
    """What the authors of the models report, with the source of each figure."""
    known = published()
    benchmarks = {"modelnet40": "ModelNet40", "objaverse_lvis": "Objaverse-LVIS", "scanobjectnn": "ScanObjectNN"}
    rows = [["model", "pre-trained on", *benchmarks.values(), "source"]]
    for entry in known["zero_shot"]:
        figures = [entry["top1_top5"].get(name) for name in benchmarks]
        shown = [f"{pair[0]} / {pair[1]}" if pair else "" for pair in figures]
        rows.append([entry["model"], entry["pretraining"], *shown, source(entry, known)])
    return f"{as_table(rows)}\n\n{sources(known)}"


def published_fine_tuned() -> str:
    known = published()
    rows = [["model", "overall", "class average", "source"]]
    for entry in known["fine_tuned"]:
        name = entry["model"] + (", with voting" if entry["voting"] else "")
        average = entry["class_average"]
        rows.append([name, str(entry["overall"]), str(average or ""), source(entry, known)])
    return as_table(rows)


def source(entry: dict, known: dict) -> str:
    """Where a figure comes from, as a number of the list of sources."""
    return f"[{list(known['sources']).index(entry['source']) + 1}]"


def sources(known: dict) -> str:
    return "Sources: " + "; ".join(f"[{n}] {text}" for n, text in enumerate(known["sources"].values(), start=1)) + "."


def published() -> dict:
    return json.loads((ROOT / "modeling_ulip2/conversion/data/published.json").read_text(encoding="utf-8"))


def releases() -> str:
    """The published checkpoints that the package opens, as `ulip2 releases --markdown` prints them."""
    from modeling_ulip2.conversion.catalog import catalog_markdown

    return catalog_markdown()


def as_table(rows: list[list[str]]) -> str:
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


TABLES = {
    "published zero-shot": published_zero_shot,
    "published fine-tuned": published_fine_tuned,
    "releases": releases,
}


def add(files: Files, file: File) -> None:
    if (old := files.get_file_from_path(file.src_uri)) is not None:
        files.remove(old)
    files.append(file)


def outside_page(source: str, page: str, pictures: set[str]) -> str:
    """A document of the repository as a page."""
    text = re.sub(r"\A---\n.*?\n---\n", "", (ROOT / source).read_text(encoding="utf-8"), flags=re.DOTALL)
    return linked(text, source, page, pictures)


def linked(text: str, source: str, page: str, pictures: set[str] | None = None) -> str:
    """The links of a document as links between pages; plain text where there is no page.

    Args:
        source: the document, as a path in the repository.
        page: what it becomes, as a path in the site.
        pictures: of the repository, to be copied; None for pages of `docs/`, whose pictures lie there.
    """

    def replaced(match: re.Match[str]) -> str:
        mark, label, target, anchor = match[1], match[2], match[3], match[4] or ""
        if "://" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if mark:
            if pictures is None:
                return match[0]
            pictures.add(path)
            return f"![{label}]({relative(path, page)})"
        place = OUTSIDE.get(path) or OUTSIDE.get(posixpath.join(path, "README.md"))
        if place is None and path.startswith("docs/"):
            place = re.sub(r"\.ipynb$", ".md", path.removeprefix("docs/"))
        return f"[{label}]({relative(place, page)}{anchor})" if place else label

    return _LINK.sub(replaced, text)


def relative(target: str, page: str) -> str:
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its cells, and under each what it printed and drew."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"]).rstrip()
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source:
            commands = all(line.startswith("!") for line in source.splitlines())
            parts.append(f"```bash\n{source[1:]}\n```" if commands else f"```python\n{source}\n```")
            parts += [shown for output in cell["outputs"] if (shown := output_text(output))]
    parts.append(f"!!! note\n    This page is the notebook `docs/tutorials/{path.name}`; a test runs it.")
    return "\n\n".join(parts) + "\n"


def output_text(output: dict) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="output" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    text = "".join(output.get("text", data.get("text/plain", [])))
    if not text.strip() or output.get("name") == "stderr":
        return ""
    return f'```text title="Output"\n{text.rstrip()}\n```'


def commands_page() -> str:
    """The help of `ulip2` and of each of its commands, as they print it."""
    parts = [
        "# Commands",
        "What each command prints with `--help`. Exit statuses are the same everywhere: 0 where all went well, 1 "
        "where numbers deviate or a captioner is unfit, 2 for bad input or where nothing could be used, 3 where some "
        "files could not be used, 130 after a stop.",
        fenced(help_text(command_parser())),
    ]
    for command in commands():
        name = f"ulip2 {' '.join(command)}"
        parts += [f"{'#' * (1 + len(command))} {name}", fenced(help_text(command_parser(*command)))]
    return "\n\n".join(parts) + "\n"


def scripts_page() -> str:
    """The help of the scripts."""
    parts = ["# Scripts", "What each script of the repository prints with `--help`."]
    for script in scripts():
        parts += [f"## {script}", fenced(help_text(program_parser(script)))]
    return "\n\n".join(parts) + "\n"


def fenced(text: str) -> str:
    return f"```text\n{text.strip()}\n```"
