"""Captions of shapes that a model was not trained on, measured beside three controls.

    python examples/captioning.py --model OUT --dataset TRIPLETS --texts DESCRIPTIONS --split_file SPLIT \
        --output_dir REPORT

Controls: the captions that the model makes of other shapes' points; the caption of the training shape whose point
embedding is nearest; and what the language model says without points. `predictions.jsonl` grows while captions are
made, so that a stopped run goes on; then come `controls.jsonl`, `metrics.json`, `report.md` and the picture
`captions.png` with shapes drawn at random. `--predictions FILE` measures captions that were made elsewhere.

If the captions suit other shapes as well, or are the same for most shapes, the terminal, the report and
`captioner_report.json` beside the model, which the demo reads, say so, and the exit status is 1.

`ulip2 evaluate captioning` is the same; what happens stands in `modeling_ulip2/recipes/captioning.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.recipes.captioning import command
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(command)
