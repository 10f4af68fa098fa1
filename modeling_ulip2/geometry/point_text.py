"""Point clouds as text: a row of numbers per point, below a header or not."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from .cloud import PointCloud
from .columns import all_known, judge, named_cloud, names_points, plain_name, unnamed_cloud
from .errors import MeshError
from .text import check_lines, lines, load_table, plain_text

# Above the first row of numbers: lines, among them lines of words.
MAX_HEADER_LINES = 100_000
MAX_WORD_LINES = 1000
_MAX_COLUMNS = 128
_COMMENT = re.compile(rb"(?:#|//|%)[^\n]*")
_NUMBER = re.compile(rb"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(rb"[-+]?\d*,\d+(?:e[-+]?\d+)?", re.IGNORECASE)


@dataclass
class _Header:
    """What stands above the first row of numbers."""

    end: int = 0  # where that row begins
    line: int = 1  # its number in the file, from 1
    names: list[str] | None = None
    count: int | None = None
    columns: list[int] | None = None  # those that hold numbers, if others hold words
    separator: bytes = b""  # of a table that holds words


def read_text(data: bytes, suffix: str, max_points: int) -> PointCloud:
    """The cloud in a text file of rows x y z and more, separated by blanks, tabs, commas or semicolons.

    A line of names above the rows decides what the columns are, also as a comment; a single number there is the count
    of points (PTS). Comments begin with #, // or %.
    """
    data = plain_text(data)
    check_lines(data)
    warnings: list[str] = []
    header = _read_header(data, warnings)
    values = _load(data[header.end :], suffix, header, max_points)
    if header.count is not None and len(values) < header.count:
        raise MeshError("truncated", f"it announces {header.count} points and holds {len(values)}")
    if header.count is not None and len(values) > header.count:
        warnings.append(f"it announces {header.count} points and holds {len(values)}: all were read")
    if header.names is None:
        return unnamed_cloud(values, intensity_first=suffix == ".pts", warnings=warnings)
    names, width = header.names, values.shape[1]
    if len(names) == width - 1 and _counts(values[:, 0]):
        values, width = values[:, 1:], width - 1  # numbers of rows, as R writes them without a name
    if len(names) != width:
        warnings.append(f"its header names {len(names)} columns, and its rows have {width}")
    cloud = named_cloud(dict(zip(names[:width], values.T, strict=False)), warnings)
    if cloud.rgb is None and width > len(names):
        cloud.rgb = judge(values[:, len(names) :], len(names) + 1, warnings)
    return cloud


def _read_header(data: bytes, warnings: list[str]) -> _Header:
    words: list[bytes] = []  # lines that are no rows of numbers
    header = _Header()
    comment: list[str] | None = None  # names of columns in the last comment that holds any
    for number, (start, line) in enumerate(lines(data), 1):
        if number > MAX_HEADER_LINES or len(words) > MAX_WORD_LINES:
            raise MeshError("corrupt", f"its first {number - 1} lines hold no row of numbers")
        line = line.strip()
        if line.startswith((b"#", b"//", b"%")):
            names = _names(line) if b"x" in line or b"X" in line else []
            comment = names if names_points(names) else comment
            continue
        cells = _one_separator(line).split()
        numbers = [_NUMBER.fullmatch(cell) is not None for cell in cells]
        if len(cells) == 1 and header.count is None and cells[0].isdigit():
            header.count = int(cells[0][:18])
        elif cells and (all(numbers) or _is_labeled_row(line, words)):
            header.end, header.line = start, number
            _check_decimals(line, number)
            if not all(numbers):
                header.separator, cells = b"," if b"," in line else b";", _split(line)
                header.columns = [i for i, cell in enumerate(cells) if _NUMBER.fullmatch(cell)]
            if not 3 <= len(cells) <= _MAX_COLUMNS:
                raise MeshError("corrupt", f"its rows have {len(cells)} numbers (line {number}); x y z are needed")
            _take_names(header, words, comment, len(cells), warnings)
            return header
        elif len(cells) >= 3 and 2 * sum(numbers) > len(cells):
            _check_decimals(line, number)
            raise MeshError("corrupt", f"its line {number} is no row of numbers ({_shown(line)})")
        elif cells:
            words.append(line)
    if len(words) > 1 or (words and not names_points(_names(words[0]))):
        _check_decimals(words[-1], len(words))
        raise MeshError("corrupt", f"its lines are not numbers ({_shown(words[-1])})")
    raise MeshError("empty", "it holds no point")


def _is_labeled_row(line: bytes, words: list[bytes]) -> bool:
    """Whether a line is a row, with words in some of its cells, of the table that the line before names."""
    if not words or not (b"," in line or b";" in line) or not names_points(names := _names(words[-1])):
        return False
    cells = _split(line)
    table = {plain_name(name): _NUMBER.fullmatch(cell) for name, cell in zip(names, cells, strict=False)}
    return len(cells) == len(names) and sum(number is not None for number in table.values()) >= 3


def _split(line: bytes) -> list[bytes]:
    """Cells between commas or semicolons, which may hold blanks; blank cells stay."""
    return [cell.strip(b" \t\"'") for cell in line.split(b"," if b"," in line else b";")]


def _take_names(
    header: _Header, words: list[bytes], comment: list[str] | None, width: int, warnings: list[str]
) -> None:
    """The names of columns among the lines above the rows: the last line of words, or else a comment that names every
    column."""
    names = _names(words[-1]) if words else []
    if names_points(names):
        if len(names) in (width, width - 1) or all_known(names[:width]):
            header.names, words = names, words[:-1]
        elif any(sign in words[-1] for sign in (b",", b";", b"\t")):
            raise MeshError("corrupt", f"its header names {len(names)} columns, and its rows have {width}")
    elif comment is not None and (len(comment) == width or all_known(comment[:width])):
        header.names = comment
    if words:
        warnings.append(f"words above its points were skipped ({_shown(words[0])} …)")
    plain = [plain_name(name) for name in header.names or []]
    twice = [name for name in ("x", "y", "z") if plain.count(name) > 1]
    if twice:
        raise MeshError("corrupt", f"its header names the column {twice[0]} twice")
    if header.columns is not None and header.names is not None:
        header.names = [header.names[i] for i in header.columns]


def _names(line: bytes) -> list[str]:
    """Names of columns, which may hold blanks where commas, semicolons or tabs separate them."""
    text = line.decode("utf-8", errors="replace").lstrip("#/%").strip(" ")
    separator = next((sign for sign in ",;\t" if sign in text), None)
    names = [name.strip().strip("\"'") for name in text.split(separator)]
    return names[:-1] if names and not names[-1] else names


def _check_decimals(line: bytes, number: int) -> None:
    words = [word for word in re.split(rb"[\s;]+", line.strip()) if word]
    commas = [word for word in words if _DECIMAL_COMMA.fullmatch(word)]
    if commas and len(words) > 1 and all(_NUMBER.fullmatch(word) or _DECIMAL_COMMA.fullmatch(word) for word in words):
        raise MeshError(
            "unsupported",
            f"its line {number} has numbers with a decimal comma ({_shown(commas[0])}); write them with a point",
        )


def _load(rows: bytes, suffix: str, header: _Header, max_points: int) -> np.ndarray:
    """(N, C) float64 of the rows, all of the same length."""
    labeled = header.columns is not None
    body = rows if labeled else _one_separator(rows)
    if suffix == ".pts":  # scans one after another, each with its count
        body = re.sub(rb"(?m)^\d+$", b"", body)
    try:
        if labeled:
            return load_table(body, max_points, header.columns, header.separator)
        return load_table(body, max_points)
    except ValueError as error:
        if isinstance(error, MeshError):
            raise
        if labeled:
            raise MeshError("corrupt", f"its rows are not alike ({error})") from None
        raise _bad_row(rows, body, header.line) from None


def _one_separator(rows: bytes) -> bytes:
    """Rows separated by blanks; an empty cell between two commas is NaN, so that what follows keeps its column."""
    if any(sign in rows for sign in (b"#", b"//", b"%")):
        rows = _COMMENT.sub(b"", rows)
    rows = rows.replace(b'"', b"")
    for sign in (b",", b";"):
        if sign in rows:
            rows = re.sub(rb"(?<=" + sign + rb")[ \t]*(?=" + sign + rb")", b"nan", rows)
            rows = re.sub(rb"(?m)^(?=" + sign + rb")", b"nan", rows)
            rows = rows.replace(sign, b" ")
    return rows


def _bad_row(rows: bytes, body: bytes, first: int) -> MeshError:
    """What is wrong with the first row that is unlike the first one; `body` is what `rows` became, line by line."""
    width = 0
    for number, ((_, written), (_, line)) in enumerate(zip(lines(rows), lines(body), strict=False), first):
        cells = line.split()
        if not cells:
            continue
        width = width or len(cells)
        word = next((cell for cell in cells if not _NUMBER.fullmatch(cell)), None)
        if word is not None:
            return MeshError("corrupt", f"its line {number} holds {_shown(word)}, which is no number")
        if len(cells) != width:
            try:
                _check_decimals(written, number)
            except MeshError as error:
                return error
            return MeshError("corrupt", f"its line {number} has {len(cells)} numbers, the lines before it {width}")
    return MeshError("corrupt", "its lines are not all rows of numbers")


def _counts(column: np.ndarray) -> bool:
    """Whether a column numbers the rows, from 0 or 1."""
    return column[0] in (0, 1) and bool((np.diff(column) == 1).all())


def _shown(line: bytes) -> str:
    return repr(line[:40].decode("utf-8", errors="replace"))
