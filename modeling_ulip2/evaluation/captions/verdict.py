"""Is a captioner worth showing? Its captions must depend on the shapes, and must not all be one sentence.

A captioner that has not learned enough gives every shape the sentence that suits the training captions best ("a white
and black chair"); its loss is low, its grammar right, and no figure alone looks wrong. Two tests on held-out shapes
catch it:

- CIDEr must be higher than that of the same captions given to other shapes (`shuffled_captions`): the 95 % bootstrap
  interval of the difference, shape by shape, must lie above zero.
- No caption may be given to more than half of the shapes, unless the references repeat themselves about as much.

`examples/captioning.py` writes the verdict as `captioner_report.json` beside the model that it measured and beside its
own report, and into the model's card. The file is one JSON object:

    format_version    1
    fit               true or false: may the captioner be shown?
    reasons           list of sentences, empty where fit
    shapes            number of held-out shapes
    cider, control_cider             mean CIDEr of the captions and of the shuffled ones, as fractions (1.0 is "100")
    cider_interval, control_interval, difference_interval      [low, high], 95 %
    top_caption, top_share           the most frequent caption, and the share of shapes that it was given to
    top_reference_share              the same share of the references' most frequent caption
    weights           SHA-256 by name of the *.safetensors files that were measured
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from modeling_ulip2.evaluation.captions.caption_report import cider_interval
from modeling_ulip2.evaluation.captions.scores import CaptionScores
from modeling_ulip2.evaluation.metrics.controls import bootstrap_interval
from modeling_ulip2.models.model_card import CARD_FILE, MARK
from modeling_ulip2.utils.checksums import sha256_of
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.private_apis import repository_file_or_none

logger = logging.getLogger(__name__)

CAPTIONER_REPORT = "captioner_report.json"
FORMAT_VERSION = 1
# A caption dominates that is given to more than this share of the shapes, and this much oftener than the references
# repeat themselves: of a hundred chairs "a chair" is right each time.
DOMINANT_SHARE, DOMINANT_EXCESS = 0.5, 1.5
# Longest file that is read; the format needs a kilobyte or two.
_MAX_BYTES = 1 << 20
_BEGIN, _END = "<!-- captions measured: begin -->", "<!-- captions measured: end -->"


@dataclass(frozen=True)
class CaptionerVerdict:
    """What held-out shapes say of a captioner; the fields are those of `captioner_report.json`, see the module."""

    shapes: int
    cider: float
    cider_interval: tuple[float, float]
    control_cider: float
    control_interval: tuple[float, float]
    difference_interval: tuple[float, float]
    top_caption: str
    top_share: float
    top_reference_share: float
    weights: dict[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> list[str]:
        """Sentences that say why the captioner is not to be shown; empty where it may be."""
        found = []
        if not self.difference_interval[0] > 0:
            low, high = (100 * value for value in self.difference_interval)
            found.append(
                f"its captions are no better than those of other shapes: CIDEr {100 * self.cider:.1f}, shuffled "
                f"{100 * self.control_cider:.1f}, difference {low:.1f} to {high:.1f} on {self.shapes} shapes"
            )
        if self.top_share > max(DOMINANT_SHARE, DOMINANT_EXCESS * self.top_reference_share):
            found.append(
                f"it says {self.top_caption!r} of {round(self.top_share * self.shapes)} of {self.shapes} shapes"
            )
        return found

    @property
    def fit(self) -> bool:
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        """As `captioner_report.json` holds it."""
        return {"format_version": FORMAT_VERSION, "fit": self.fit, "reasons": self.reasons, **asdict(self)}


def judge_captioner(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    scores: CaptionScores,
    control: CaptionScores,
    model_folder: str | Path | None = None,
    seed: int = 0,
) -> CaptionerVerdict:
    """The verdict on captions of held-out shapes.

    Args:
        predictions: caption by id.
        references: captions by id, of at least these ids.
        scores, control: of `predictions` and of the same captions given to other shapes.
        model_folder: what made them; its weights are noted, so that the verdict is not taken for another model's.
        seed: of the bootstrap.
    """
    if set(scores.ids) != set(control.ids):
        raise ValueError("the scores and those of the control are not about the same shapes")
    shuffled = dict(zip(control.ids, control.per_caption["cider"], strict=True))
    own, other = np.asarray(scores.per_caption["cider"]), np.asarray([shuffled[name] for name in scores.ids])  # (N,)
    difference = own - other  # (N,)
    captions = Counter(_plain(predictions[name]) for name in scores.ids)
    top_caption, count = captions.most_common(1)[0]
    repeated = Counter(text for name in scores.ids for text in {_plain(text) for text in references[name]})
    return CaptionerVerdict(
        shapes=len(scores.ids),
        cider=float(own.mean()),
        cider_interval=cider_interval(scores, seed),
        control_cider=float(other.mean()),
        control_interval=cider_interval(control, seed),
        difference_interval=bootstrap_interval(
            len(difference), lambda rows: float(difference[rows].mean()), seed=seed
        ),
        top_caption=top_caption,
        top_share=count / len(scores.ids),
        top_reference_share=repeated.most_common(1)[0][1] / len(scores.ids),
        weights={} if model_folder is None else weights_of(Path(model_folder)),
    )


def _plain(text: str) -> str:
    return " ".join(text.split()).lower()


def weights_of(folder: Path) -> dict[str, str]:
    """SHA-256 by name of a folder's weights; {} where there is no such folder."""
    return {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}


def write_verdict(verdict: CaptionerVerdict, folder: str | Path) -> Path:
    """Writes `captioner_report.json` into a folder, and into its card where that is one of this package's."""
    folder = Path(folder)
    path = folder / CAPTIONER_REPORT
    write_text(path, json.dumps(verdict.to_dict(), indent=2, ensure_ascii=False) + "\n")
    card = folder / CARD_FILE
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    if MARK in text:  # a card that a person wrote stays as it is
        before, _, rest = text.partition(_BEGIN)
        after = rest.partition(_END)[2]
        section = "\n".join([_BEGIN, "## Captions of held-out shapes", "", *verdict_lines(verdict), _END])
        write_text(card, f"{before.rstrip()}\n\n{section}\n{after.lstrip()}")
    return path


def verdict_lines(verdict: CaptionerVerdict) -> list[str]:
    """Markdown: the figures in a sentence, after a warning where the captioner is not to be shown."""
    warning = []
    if not verdict.fit:
        warning = [f"> **Warning: this captioner is not worth showing.** {_sentence(verdict.reasons)}", ""]
    low, high = (100 * value for value in verdict.cider_interval)
    return [
        *warning,
        f"CIDEr {100 * verdict.cider:.1f} ({low:.1f} – {high:.1f}) on {verdict.shapes} held-out shapes; the same "
        f"captions given to other shapes: {100 * verdict.control_cider:.1f}. The most frequent caption, "
        f"“{verdict.top_caption}”, was given to {100 * verdict.top_share:.0f} % of the shapes.",
        "",
    ]


def verdict_banner(verdict: CaptionerVerdict) -> str:
    """What a terminal shows of a captioner that is not to be shown."""
    line = "!" * 100
    said = "\n".join(f"!! - {reason}" for reason in verdict.reasons)
    advice = "!! Train longer, on more shapes, or with a better encoder; `make demo` does not show this one."
    return f"{line}\n!! This captioner is not worth showing:\n{said}\n{advice}\n{line}"


def captioner_verdict(name_or_path: str | Path) -> str | None:
    """Why a captioner must not be shown, in a sentence; None where it may be, or where it was not measured.

    Args:
        name_or_path: folder or hub name of the model. A folder's report counts for the weights that were measured
            alone: a model that was trained on since is one that was not measured.
    """
    folder = Path(name_or_path).expanduser()
    path = folder / CAPTIONER_REPORT if folder.is_dir() else _from_hub(str(name_or_path))
    if path is None or not path.is_file():
        return None
    try:
        report = _read(path)
    except (OSError, ValueError, RecursionError) as error:
        logger.warning(f"{name_or_path}: {CAPTIONER_REPORT} cannot be read ({error}): not used")
        return None
    if folder.is_dir() and report["weights"] and report["weights"] != weights_of(folder):
        logger.warning(f"{folder}: {CAPTIONER_REPORT} is about other weights than are there now: not used")
        return None
    return None if report["fit"] else _sentence(report["reasons"])


def _from_hub(name: str) -> Path | None:
    try:
        found = repository_file_or_none(name, CAPTIONER_REPORT)
    except (OSError, ValueError) as error:
        logger.info(f"{name}: no {CAPTIONER_REPORT} can be had ({error})")
        return None
    return None if found is None else Path(found)


def _read(path: Path) -> dict[str, Any]:
    """A report whose fields have the right types. Raises ValueError."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES} bytes")
    report = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(report, dict) or not isinstance(report.get("fit"), bool):
        raise ValueError("its field 'fit' must be true or false")
    reasons, weights = report.setdefault("reasons", []), report.setdefault("weights", {})
    if not isinstance(reasons, list) or not all(isinstance(own, str) for own in reasons):
        raise ValueError("its field 'reasons' must be a list of sentences")
    if not isinstance(weights, dict):
        raise ValueError("its field 'weights' must map file names to checksums")
    return report


def _sentence(reasons: Sequence[str]) -> str:
    text = "; ".join(reasons) or "its report says so, without a reason"
    return text[0].upper() + text[1:] + "."
