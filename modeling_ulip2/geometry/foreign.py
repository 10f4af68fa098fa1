"""What a failed download leaves under the name of a model: it is recognized by its content, whatever its suffix."""

from __future__ import annotations

import json
import re

from .text import plain_text

# Beyond this no server writes an error in JSON or plain words, and no pointer is as long.
MOST_BYTES = 64 * 2**10
_PEEK = 4096
# A binary file may begin with a few.
_MOST_NULS = 128
_HTML = re.compile(
    rb"<(!doctype|html|head|body|title|script|meta|link|style|div|center|h[1-6]|p|pre|br|table)\b", re.IGNORECASE
)
_XML = re.compile(rb"<(\?xml|!--|error\b|[a-z]\w*:)", re.IGNORECASE)
_WORDS = re.compile(
    r"((error|http)\W*)?([1-5]\d\d\W+)?(not found|no such key|access denied|forbidden|unauthori[sz]ed|bad request|"
    r"bad gateway|gone|gateway time-?out|service unavailable|internal server error|too many requests|"
    r"request time-?out|moved permanently|invalid (username|credentials|token)|(entry|repository|file|page|revision) "
    r"not found|access to (model|dataset|this resource|space) .{0,200} is (restricted|denied)|"
    r"rate limit (exceeded|reached))",
    re.IGNORECASE,
)
_KEYS = {"error", "errors", "message", "detail", "details", "status", "statuscode", "code", "error_description"}


def foreign_content(data: bytes) -> str | None:
    """What stands in a file instead of a model, and what to do about it; None where nothing like that is seen.

    Args:
        data: the file's content; its first `MOST_BYTES` and one more suffice.

    Returns:
        The end of a sentence that begins with the file's name and "it is", for an error.
    """
    head = data[:MOST_BYTES]
    if is_blank(data):
        return "an empty file, as an interrupted download leaves; download it again"
    try:
        text = plain_text(head).lstrip()
    except ValueError:  # binary
        return None
    if text.startswith((b"version https://git-lfs.github.com/", b"version https://hawser.github.com/")):
        return "a Git LFS pointer and not the file itself; fetch that with `git lfs pull`, or download it again"
    if text.startswith(b"# xet version") or text.startswith(b"version https://xethub.com/"):
        return "a pointer into Xet storage and not the file itself; download it again"
    again = "and not the file itself, as a server answers to a wrong address; check the address and download it again"
    peek = text[:_PEEK]
    if _HTML.match(peek) or (_XML.match(peek) and re.search(rb"<(!doctype )?html\b", peek, re.IGNORECASE)):
        return f"an HTML page {again}"
    if _XML.match(peek):
        return f"an XML document {again}"
    if text.startswith((b"{", b"[")) and len(data) <= MOST_BYTES and _is_json_error(text):
        return f"an error message in JSON {again}"
    if len(data) < 2048 and (match := _WORDS.match(text.decode("utf-8", errors="replace"))):
        return f"an error message ({match.group(0).strip()[:60]!r}) {again}"
    return None


def is_blank(data: bytes) -> bool:
    """Whether a file holds nothing: no byte, blanks, or the NULs with which a broken download may fill its place."""
    return not data[:MOST_BYTES].strip() or (len(data) > _MOST_NULS and not data[:MOST_BYTES].strip(b"\0"))


def _is_json_error(text: bytes) -> bool:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    return isinstance(content, dict) and "asset" not in content and any(str(key).lower() in _KEYS for key in content)
