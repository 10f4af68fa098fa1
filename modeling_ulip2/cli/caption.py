"""`ulip2 caption`: what a model says about your own files."""

from __future__ import annotations

import argparse
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser, add_hub_arguments, hub_options, positive
from modeling_ulip2.utils.scripts import status

from .shared import (
    add_command,
    add_device,
    add_files,
    add_model,
    shape_files,
    tell_failure,
    tell_warnings,
)


def register(commands: Any) -> str:
    return add_command(
        commands,
        "caption",
        run,
        "describe a shape in words",
        _fill,
        "Say what 3D files show, or answer a question about them; words are printed as they come.",
    )


def _fill(parser: CommandParser) -> None:
    add_files(parser)
    add_model(parser, "a captioning model", default=None)
    add = parser.group("words").add_argument
    add("--prompt", help='what to do (default: the paper\'s "describe the 3d model.")')
    add("--max_new_tokens", type=positive, help="longest answer, in tokens")
    add("--num_beams", type=positive, help="search with so many beams (words are then printed at the end)")
    add("--sample", action="store_true", help="draw words instead of taking the likeliest")
    add("--seed", type=int, default=0, help="of --sample")
    add("--plain", action="store_true", help="without the language model's chat template")
    add = parser.group("model").add_argument
    add("--language_model", metavar="NAME_OR_PATH", help="where the model's own has moved")
    add("--point_model", metavar="NAME_OR_PATH", help="point encoder, where the model's own has moved")
    add_hub_arguments(parser, "model")
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    from transformers import TextStreamer, set_seed

    from modeling_ulip2.pipelines.point_cloud_to_text import load_captioner

    files = shape_files(options.files, options.root)
    captioner = load_captioner(
        options.model,
        device=options.device,
        language_model_name_or_path=options.language_model,
        point_model_name_or_path=options.point_model,
        **hub_options(options),
    )
    settings = {"max_new_tokens": options.max_new_tokens, "num_beams": options.num_beams}
    settings = {name: value for name, value in settings.items() if value is not None}
    streams = (options.num_beams or 1) == 1
    failed = 0
    # one by one, so that the first words come soon
    for record in captioner.embedder.iter_shapes(
        files, root=options.root, up_axis=options.up_axis, batch_size=1, progress=False
    ):
        tell_warnings(record.id, record.warnings)
        if record.failure is not None:
            tell_failure(record.failure)
            failed += 1
            continue
        if len(files) > 1:
            print(f"{record.id}: ", end="", flush=True)
        set_seed(options.seed)
        tokenizer = captioner.processor.tokenizer
        answer = captioner.answer(
            record.vector(),
            prompt=options.prompt,
            chat_template="plain" if options.plain else None,
            generate_kwargs=settings | {"do_sample": options.sample},
            streamer=TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True) if streams else None,
        )
        if not streams:
            print(answer[0]["generated_text"])
    return status(failed, len(files))
