"""Search: words, a photo, a shape, or what they add up to -> the nearest shapes of the collection."""

from __future__ import annotations

import math
from typing import Any

import gradio as gr

from modeling_ulip2.search.index import Match

from . import fit
from .engine import Engine, Hit
from .shared import (
    PRIVATE,
    QUIET,
    SEARCH_LANE,
    Asked,
    Panel,
    file_inputs,
    notes,
    on_page,
    photo_input,
    read_query,
    reveal,
    thumbnails,
    title,
)
from .stage import Stage

MAX_RESULTS = 48
MAX_WEIGHT = 4.0
SHOWN = 12
EXAMPLES = 4
RESULTS_ID = "search-results"
# See `fit`.
_POOR = "**Nothing here fits well:** the best match stands out less than for nine in ten of the collection's own {}."
POOR = {fit.WORDS: _POOR.format("names"), fit.SHAPE: _POOR.format("shapes, each compared with the others")}


class SearchRoom:
    """Fills the tab; made inside its `gr.Tab`. `grown` changes when the collection has grown."""

    def __init__(self, engine: Engine, grown: gr.State | None = None) -> None:
        self._engine = engine
        self._home = engine.showcase(SHOWN)
        most = min(MAX_RESULTS, len(engine.index))
        hits = gr.State(self._home)
        self._like = gr.State(None)  # row of the shape that is asked about
        with gr.Row(equal_height=False, elem_classes="rooms"):
            with gr.Column(scale=3, min_width=260):
                text = gr.Textbox(
                    label="Words", info="Read as English", placeholder="a wooden chair", max_lines=3, autofocus=True
                )
                self._chip = gr.Button(visible=False, size="sm", elem_classes="chip")
                with gr.Row(elem_classes="line"):
                    go = gr.Button("Search", variant="primary", size="md", min_width=100, scale=3)
                    clear = gr.Button("Start over", variant="secondary", size="md", min_width=100, scale=2)
                with gr.Row(elem_classes="chips"):
                    examples = [gr.Button(words, size="sm", min_width=60) for words in engine.examples(EXAMPLES)]
                    if grown is not None:
                        more = EXAMPLES - len(examples)
                        examples += [gr.Button(visible=False, size="sm", min_width=60) for _ in range(more)]
                with gr.Accordion("Add a photo or a 3D file", open=False):
                    gr.Markdown("Everything is added up: a chair's file and “red” find red chairs.")
                    photo = photo_input()
                    file, up = file_inputs()
                    weight = gr.Slider(
                        0.25, MAX_WEIGHT, value=1.0, step=0.25, label="How loud the words are", info="Beside the rest"
                    )
                count = gr.Slider(
                    1, max(2, most), value=min(SHOWN, most), step=1, label="Results", visible=most > 1, buttons=[]
                )
            with gr.Column(scale=6, min_width=320, elem_id=RESULTS_ID):
                status = gr.Markdown(self._welcome(), elem_classes="hint")
                remarks = gr.HTML(elem_classes="notes")
                gallery = thumbnails(self._cards(self._home), label="Nearest shapes", columns=4)
            self._stage = stage = Stage(engine, "search", RESULTS_ID)

        panel = Panel(text, photo, file, up)
        self._form = [*panel.inputs, weight, self._like, self._chip]
        self._inputs = [*panel.inputs, self._like, count, weight]
        self._results = [gallery, status, remarks, hits, stage.column]
        self._options: dict[str, Any] = {**PRIVATE, **SEARCH_LANE, "show_progress_on": gallery}

        self._ask(gr.on([go.click, text.submit], self._search, self._inputs, self._results, **self._options))
        for button in examples:
            self._then_search(
                button.click(lambda words: self._empty(words), button, self._form, queue=False, **PRIVATE)
            )
        self._chip.click(
            lambda: (None, gr.Button(visible=False)), None, [self._like, self._chip], queue=False, **PRIVATE
        )
        stage.follow(gallery.select(self._choose, hits, stage.opening, show_progress="hidden", queue=False, **PRIVATE))
        self.find_like(stage)
        clear.click(
            lambda: (*self._empty(), *self._show(self._home, self._welcome())),
            None,
            [*self._form, *self._results],
            queue=False,
            **PRIVATE,
        )

        if grown is not None:
            grown.change(self._grow, [hits, count], [gallery, status, hits, count, *examples], **QUIET)

    def _grow(self, found: list[Hit], count: float) -> tuple[Any, ...]:
        """The form of the grown collection; the shapes to begin with change only where nothing was asked yet."""
        self._home = home = self._engine.showcase(SHOWN)
        at_home = all(math.isnan(hit.score) for hit in found)
        shown = (gr.Gallery(self._cards(home)), self._welcome(), home) if at_home else (gr.skip(),) * 3
        most = min(MAX_RESULTS, len(self._engine.index))
        slider = gr.Slider(maximum=max(2, most), value=max(count, min(SHOWN, most)), visible=most > 1)
        words = self._engine.examples(EXAMPLES)
        chips = [gr.Button(text, visible=True) for text in words]
        return (*shown, slider, *chips, *[gr.Button(visible=False)] * (EXAMPLES - len(words)))

    def find_like(self, stage: Stage, first: dict[str, Any] | None = None) -> None:
        """Makes a stage's button ask for shapes like the one that it shows. `first`: another step, done before."""
        event = stage.more.click(lambda hit: self._empty("", hit), stage.chosen, self._form, queue=False, **PRIVATE)
        self._then_search(event if first is None else event.then(**first))

    def _then_search(self, event: Any) -> None:
        self._ask(event.then(self._search, self._inputs, self._results, **self._options))

    @staticmethod
    def _ask(event: Any) -> None:
        event.then(**reveal(RESULTS_ID))

    @on_page
    def _search(
        self,
        text: str,
        photo: str | None,
        file: str | None,
        up: str,
        like: int | None,
        count: float,
        text_weight: float,
    ) -> tuple[Any, ...]:
        text = text or ""  # None while nobody has touched it
        asked = read_query(self._engine, text, photo, file, up, text_weight, like)
        found = self._engine.find(asked.vector, int(count), without=like)
        return self._show(found, self._heading(asked, found, text, photo, file, like), asked.warnings)

    @on_page
    def _choose(self, event: gr.SelectData, found: list[Hit]) -> tuple[Any, ...]:
        return self._stage.open(found[event.index])

    def _empty(self, text: str = "", like: Hit | None = None) -> tuple[Any, ...]:
        """The form with these words alone, or with a shape of the collection alone."""
        if like is None:
            return text, None, None, "auto", 1.0, None, gr.Button(visible=False)
        return text, None, None, "auto", 1.0, like.row, gr.Button(f"like “{title(like)}” ✕", visible=True)

    def _welcome(self) -> str:
        return f"**{len(self._engine.index):,} shapes**, a few of them below. Describe what you are looking for."

    def _heading(
        self, asked: Asked, found: list[Hit], text: str, photo: str | None, file: str | None, like: int | None
    ) -> str:
        parts = [
            f"“{text.strip()}”" if text.strip() else "",
            "your photo" if photo else "",
            "your shape" if file else "",
        ]
        if like is not None:
            (hit,) = self._engine.hits([Match(like, 1.0)])
            parts.insert(0, f"“{title(hit)}”")
        asks = "Most like" if like is not None and not any(parts[1:]) else "Nearest to"
        if not found:
            return f"{asks} {' + '.join(filter(None, parts))}: there is no other shape."
        poor = self._engine.fit.is_poor(asked.kind, asked.vector, found[0].score)
        heading = f"{asks} {' + '.join(filter(None, parts))}; the number is the cosine. Click a shape to turn it."
        return f"{heading}\n\n{POOR[asked.kind]}" if poor else heading

    def _show(self, found: list[Hit], heading: str, warnings: list[str] | None = None) -> tuple[Any, ...]:
        gallery = gr.Gallery(self._cards(found), selected_index=None)
        return gallery, heading, notes(warnings or []), found, gr.Column(visible=False)

    def _cards(self, hits: list[Hit]) -> list[tuple[Any, str]]:
        scores = ["" if math.isnan(hit.score) else f"{hit.score:.2f} · " for hit in hits]
        return [(self._engine.picture(hit.row), score + title(hit)) for hit, score in zip(hits, scores, strict=True)]
