"""Shell blocks: each command is checked against the parser that would read it, and run where it needs nothing.

The parser is the one that the program itself builds: it is started with `--help`, and caught as it prints. So no list
of options stands here, and a document that names an option that went away fails.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from docs.program_parsers import NoParserError, command_of, command_parser, program_parser

from .blocks import ROOT, Block
from .outputs import agrees

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Programs of others, whose options are not ours to check.
OTHERS = {"cd", "export", "git", "hf", "mkdir", "unzip", "cat", "jupyter", "pre-commit", "twine", "eval"}
PUNCTUATION = {"&&", ";", "|", "||", "&", ">", ">>", "<"}
# Options of launchers that take no value; all others of theirs do.
SWITCHES = {"--multi_gpu", "--cpu", "--standalone", "--use_fsdp", "--no_python"}


# Words that start so are paths in the repository.
SEEN = ("dataset_scripts/", "docs/", "examples/", "spaces_demo/", "tests/")


class CommandError(AssertionError):
    """A command of a document that would not work."""


def commands(code: str) -> Iterator[list[str]]:
    """The commands of a shell block as words, without comments, variables before them and what joins them."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in PUNCTUATION:
                words.append(word)
                continue
            while words and re.match(r"\w+=", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []


def check_block(block: Block) -> None:
    """
    Raises:
        CommandError: a program, script, target, extra or option that does not exist.
    """
    for words in commands(block.code):
        try:
            check(words)
        except CommandError as error:
            raise CommandError(f"{block.place}: {shlex.join(words)}\n{error}") from None


def check(words: list[str]) -> None:
    program, arguments = words[0], words[1:]
    check_paths([word.partition("::")[0] for word in words if word.startswith(SEEN)])
    if program == "ulip2":
        command = parser_of(command_of, arguments)
        named = sum(word == given for word, given in zip(command, arguments, strict=False))
        check_options(parser_of(command_parser, *command, whole=True), arguments[named:])
    elif program in ("python", "python3", "torchrun", "accelerate") or program.endswith("/python"):
        check_python(program, arguments)
    elif program == "make":
        check_make(arguments)
    elif program in ("pip", "uv"):
        check_pip(arguments)
    elif program == "sbatch":
        check_batch_job(arguments)
    elif program in (".", "source") or program in OTHERS:
        return
    else:
        raise CommandError(f"what is {program}? Name it among OTHERS if it is no program of this project.")


def check_python(program: str, arguments: list[str]) -> None:
    """`python SCRIPT …`, `python -m MODULE …`, and both behind `torchrun` or `accelerate launch`."""
    rest = list(arguments)
    if program in ("torchrun", "accelerate"):
        if program == "accelerate":
            if rest[:1] != ["launch"]:
                return
            rest.pop(0)
        while rest and rest[0].startswith("--"):
            option = rest.pop(0)
            if option not in SWITCHES and "=" not in option and rest:
                rest.pop(0)
    if rest[:1] == ["-c"] or not rest:
        return
    if rest[0] == "-m":
        module, rest = rest[1], rest[2:]
        if module == "pip":
            check_pip(rest)
        elif module == "modeling_ulip2.cli":
            check(["ulip2", *rest])
        elif module.startswith("modeling_ulip2"):
            check_options(parser_of(program_parser, "-m", module), rest)
        return
    script, rest = rest[0], rest[1:]
    check_paths([script])
    check_options(parser_of(program_parser, script), rest)


def parser_of(find: Callable[..., Any], *words: Any, **options: Any) -> Any:
    """What finds a parser, with its errors as those of a document."""
    try:
        return find(*words, **options)
    except NoParserError as error:
        raise CommandError(str(error)) from None


def check_paths(names: list[str]) -> None:
    for name in names:
        if not (ROOT / name).exists():
            raise CommandError(f"there is no {name} in the repository")


def check_batch_job(arguments: list[str]) -> None:
    """A Slurm script hands its arguments on to the script that it starts."""
    started = re.findall(r"\bexamples/\w+\.py\b", (ROOT / arguments[0]).read_text(encoding="utf-8"))
    check_options(parser_of(program_parser, started[-1]), arguments[1:])


def check_make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    variables = set(re.findall(r"^(\w+) \??:?=", makefile, re.MULTILINE)) | set(re.findall(r"\$\((\w+)\)", makefile))
    for word in arguments:
        name, is_variable, _ = word.partition("=")
        if name not in (variables if is_variable else targets):
            raise CommandError(f"the Makefile knows no {name}")


def check_pip(arguments: list[str]) -> None:
    """The extras that are named exist."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in arguments:
        named = re.match(r"(?:modeling-ulip2|\.)\[([\w,-]+)\]", word)
        unknown = set(named[1].split(",")) - set(extras) if named else set()
        if unknown:
            raise CommandError(f"there is no extra {', '.join(sorted(unknown))}")
        if word.startswith("modeling-ulip2"):
            Requirement(word)


def check_options(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
    """Every option exists by its full name, its choice is one, and what is required is there."""
    actions = parser._option_string_actions
    action: argparse.Action | None = None
    for word in arguments:
        if action is not None and action.choices is not None and word in action.choices:
            continue
        if re.match(r"--?[A-Za-z]", word):
            name, _, value = word.partition("=")
            action = actions.get(name)
            if action is None and name not in ("--traceback",):
                raise CommandError(f"{parser.prog} has no option {name}; it has {', '.join(sorted(actions))}")
            word = value
        if action is not None and action.choices is not None and is_given(word) and word not in action.choices:
            if action.nargs is None or value_follows(action, arguments, word):
                raise CommandError(
                    f"{action.option_strings[0]} cannot be {word}: {', '.join(map(str, action.choices))}"
                )
    if "…" not in arguments and "--help" not in arguments and "--version" not in arguments:
        check_parse(parser, arguments)


def is_given(word: str) -> bool:
    """Is this a value, not a name that stands for one?"""
    return bool(word) and word != "…" and not word.isupper()


def value_follows(action: argparse.Action, arguments: list[str], word: str) -> bool:
    """Does a word stand right behind an option that takes several?"""
    return any(
        option in action.option_strings and after == word
        for option, after in zip(arguments, arguments[1:], strict=False)
    )


def check_parse(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
    """The whole line as the program would parse it; `N` stands for a number, a configuration for what is required."""
    words = ["1" if word == "N" else word for word in arguments if word != "--traceback"]
    required = [action for action in parser._actions if action.required]
    if "--config" in words:
        for action in required:
            action.required = False
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser.parse_args(_joined(words))
    except SystemExit as ended:
        if ended.code:
            raise CommandError(said.getvalue().strip().splitlines()[-1]) from None
    finally:
        for action in required:
            action.required = True


def _joined(words: list[str]) -> list[str]:
    """`--up-axis -z` as one word, as the command `ulip2` reads it."""
    joined: list[str] = []
    for word in words:
        if word == "-z" and joined and joined[-1].startswith("--up"):
            joined[-1] += "=-z"
        else:
            joined.append(word)
    return joined


def run_block(block: Block, folder: Path) -> None:
    """Runs a block in a folder and compares what its commands print.

    Raises:
        CommandError: a command fails, or prints something else.
    """
    printed = ""
    for words in commands(block.code):
        code, said = run(words, folder)
        if code:
            raise CommandError(f"{block.place}: {shlex.join(words)} ends with {code}\n{said}")
        printed += said
    if block.output is not None and not agrees(block.output, printed):
        raise CommandError(f"{block.place} promises\n{block.output}\nand prints\n{printed}")


def run(words: list[str], folder: Path) -> tuple[int, str]:
    """Exit status and output; the command `ulip2` runs in this process, where torch is loaded already."""
    if words[0] == "ulip2":
        from modeling_ulip2.cli import main

        out, errors = io.StringIO(), io.StringIO()
        before = Path.cwd()
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                code = main(words[1:])
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            os.chdir(before)
        return code, out.getvalue() + (errors.getvalue() if code else "")
    if words[0] in ("cat", "mkdir"):
        ended = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    elif words[0] in ("python", "python3"):
        ended = subprocess.run([sys.executable, *words[1:]], cwd=folder, capture_output=True, text=True)
    else:
        raise CommandError(f"a block that runs {words[0]} has to say what it needs")
    return ended.returncode, ended.stdout + (ended.stderr if ended.returncode else "")
