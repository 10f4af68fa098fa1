"""Captions as the words that n-gram metrics count, and METEOR: the parts of COCO's evaluation that run on Java.

`pycocoevalcap` brings the Java programs along. Its own wrappers wait for them without end, and one of them writes into
the installed package; here every wait has a limit, and what Java says is in the error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any

from modeling_ulip2.utils.packages import require_package

# Seconds. METEOR reads 60 MB of paraphrases before it answers.
TOKENIZER_TIMEOUT, METEOR_TIMEOUT = 300.0, 900.0
TOKENIZERS = ("ptb", "regex")

# Words with inner hyphens, apostrophes, points and commas (low-poly, o'clock, e.g., 3.5), before what PTB splits off.
_WORD = re.compile(r"[^\W_]+(?:[-'’.,_/][^\W_]+)*|[&%$]")
_CLITIC = re.compile(r"(?<=\w)(n't|'(?:s|re|ve|ll|d|m))$")


class JavaError(RuntimeError):
    """A Java program of the caption metrics failed or took too long; the message says which and why."""


def java_is_available() -> bool:
    return shutil.which("java") is not None


def split_captions(captions: Sequence[str], tokenizer: str | None = None) -> tuple[list[str], str]:
    """Captions in lower case without punctuation, words separated by single blanks, and the tokenizer that was used.

    "ptb" is Stanford's tokenizer as in COCO's evaluation, which every published figure uses; it needs Java. "regex"
    needs nothing and gives the same words for ordinary captions; it differs in abbreviations with points ("u.s.a.")
    and in brackets of the Penn Treebank. `None` chooses "ptb" where there is Java.

    Raises:
        ValueError: no such tokenizer.
        JavaError: "ptb" without Java, or Java failed.
    """
    if tokenizer is None:
        tokenizer = "ptb" if java_is_available() else "regex"
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"there is no tokenizer {tokenizer!r}, choose one of {', '.join(TOKENIZERS)}")
    split = _split_by_ptb if tokenizer == "ptb" else _split_by_regex
    # one line per caption is what the Java programs read; "|||" is METEOR's separator
    return split([" ".join(caption.replace("|", " ").split()) for caption in captions]), tokenizer


def _split_by_regex(captions: Sequence[str]) -> list[str]:
    split = []
    for caption in captions:
        words = [_CLITIC.sub(r" \1", word) for word in _WORD.findall(caption.lower().replace("’", "'"))]
        split.append(" ".join(words))
    return split


def _split_by_ptb(captions: Sequence[str], timeout: float = TOKENIZER_TIMEOUT) -> list[str]:
    if not java_is_available():
        raise JavaError('the tokenizer "ptb" needs Java, which is not on the PATH; "regex" needs nothing')
    module = require_package("pycocoevalcap.tokenizer.ptbtokenizer", "caption")
    jar = Path(str(module.__file__)).with_name(module.STANFORD_CORENLP_3_4_1_JAR)
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    try:
        done = subprocess.run(
            [*command, "-encoding", "utf-8"],
            input="".join(f"{caption}\n" for caption in captions).encode(),
            capture_output=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise JavaError(f"the PTB tokenizer took more than {timeout:g} s for {len(captions)} captions") from error
    lines = done.stdout.decode(errors="replace").splitlines()
    if done.returncode or len(lines) != len(captions):
        raise JavaError(
            f"the PTB tokenizer gave {len(lines)} lines for {len(captions)} captions and ended with code "
            f"{done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"
        )
    punctuation = set(module.PUNCTUATIONS)
    lines = [line.replace("-lrb-", "-LRB-").replace("-rrb-", "-RRB-") for line in lines]  # lowered by -lowerCase
    return [" ".join(word for word in line.split() if word not in punctuation) for line in lines]


class Meteor:
    """METEOR 1.5 as COCO's evaluation calls it, as a context manager that keeps one Java process for several calls.

    Args:
        timeout: seconds that one call may take; then the process is killed.

    Raises:
        JavaError: there is no Java, or it failed or took too long.
    """

    def __init__(self, timeout: float = METEOR_TIMEOUT):
        if not java_is_available():
            raise JavaError("METEOR needs Java, which is not on the PATH")
        self.timeout = timeout
        self._scorer: Any = require_package("pycocoevalcap.meteor.meteor", "caption").Meteor()

    def __enter__(self) -> Meteor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the Java process."""
        process = self._scorer.meteor_p
        process.kill()
        # the destructor of pycocoevalcap closes it again, which is then no error
        with suppress(OSError):
            process.stdin.close()

    def __call__(
        self, references: Mapping[str, Sequence[str]], predictions: Mapping[str, Sequence[str]]
    ) -> tuple[float, list[float]]:
        """Corpus score and the score of each prediction.

        Args:
            references: captions by id, split into words.
            predictions: one caption in a list by id, split into words; the same ids in the same order.
        """
        process = self._scorer.meteor_p
        # killing it ends the wait for its answer
        watchdog = Timer(self.timeout, process.kill)
        watchdog.start()
        try:
            corpus, single = self._scorer.compute_score(references, predictions)
        except (OSError, ValueError) as error:
            process.kill()
            said = process.stderr.read().decode(errors="replace")[-500:].strip()
            raise JavaError(
                f"METEOR gave no score within {self.timeout:g} s or failed: {said or type(error).__name__}"
            ) from error
        finally:
            watchdog.cancel()
            # pycocoevalcap's lock stays shut after an error, and its destructor would wait for it for ever
            if self._scorer.lock.locked():
                self._scorer.lock.release()
        return float(corpus), [float(score) for score in single]
