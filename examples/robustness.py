"""Accuracy against what happens to clouds outside a dataset: fewer points, noise, occlusion, rotation, lost color,
and views from few sides.

    python examples/robustness.py --model MODEL --dataset TRIPLETS --labels_file LABELS --split_file SPLIT \
        --meshes MESHES --output_dir OUT

Measures zero-shot classification by a `Ulip2Model`, and beside it any classifiers of finetune_classification.py
(`--classifiers`) on the test shapes of the split. Writes `robustness.png`, `robustness.md` and `robustness.json`.
Every level is written when it is measured, and a second run goes on from there. `--meshes`, the folders from which
the dataset was built, adds clouds of more points than are stored, and partial views.

`ulip2 evaluate robustness` is the same; what happens stands in `modeling_ulip2/recipes/robustness.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.recipes.robustness import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
