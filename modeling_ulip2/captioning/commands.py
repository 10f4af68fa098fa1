"""`ulip2 caption`: what a model says about your own files."""

from __future__ import annotations

import argparse
from typing import Any

from modeling_ulip2.captioning_card_ulip2 import PROMPT


def add_commands(commands: Any) -> None:
    """Registers it with the sub-parsers of the command `ulip2`."""
    parser = commands.add_parser(
        "caption",
        help="describe a shape in words",
        description="Say what a 3D file shows, or answer a question about it; words are printed as they come.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a mesh or a point cloud")
    parser.add_argument(
        "--model", required=True, metavar="NAME_OR_PATH", help="folder or hub name of a captioning model"
    )
    parser.add_argument("--prompt", default=PROMPT, help='what to do (default: "%(default)s")')
    parser.add_argument("--max_new_tokens", type=int, help="longest answer, in tokens")
    parser.add_argument("--num_beams", type=int, help="search with so many beams (words are then printed at the end)")
    parser.add_argument("--sample", action="store_true", help="draw words instead of taking the likeliest")
    parser.add_argument("--seed", type=int, default=0, help="of --sample")
    parser.add_argument("--plain", action="store_true", help="without the language model's chat template")
    parser.add_argument("--language_model", metavar="NAME_OR_PATH", help="where the model's own has moved")
    parser.add_argument("--point_model", metavar="NAME_OR_PATH", help="point encoder, where the model's own has moved")
    parser.add_argument("--device", help="where to compute (default: a GPU if there is one)")
    parser.set_defaults(run=_caption)


def _caption(options: argparse.Namespace) -> int:
    from transformers import AutoModelForMultimodalLM, AutoProcessor, TextStreamer, pipeline, set_seed

    from .pipeline import POINT_CLOUD_TO_TEXT

    places = {
        "language_model_name_or_path": options.language_model,
        "point_model_name_or_path": options.point_model,
    }
    given = {name: place for name, place in places.items() if place is not None}
    model = AutoModelForMultimodalLM.from_pretrained(options.model, **given)
    processor: Any = AutoProcessor.from_pretrained(options.model)
    make_pipeline: Any = pipeline  # its overloads know the tasks of transformers only
    captioner = make_pipeline(
        POINT_CLOUD_TO_TEXT,
        model=model,
        processor=processor,
        feature_extractor=processor.feature_extractor,
        device=options.device,
    )
    settings = {"max_new_tokens": options.max_new_tokens, "num_beams": options.num_beams}
    settings = {name: value for name, value in settings.items() if value is not None}
    streams = (options.num_beams or 1) == 1
    for file in options.files:
        if len(options.files) > 1:
            print(f"{file}: ", end="", flush=True)
        set_seed(options.seed)
        answer = captioner(
            file,
            prompt=options.prompt,
            chat_template="plain" if options.plain else None,
            generate_kwargs=settings | {"do_sample": options.sample},
            streamer=TextStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
            if streams
            else None,
        )
        if not streams:
            print(answer[0]["generated_text"])
    return 0
