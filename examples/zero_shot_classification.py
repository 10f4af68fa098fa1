"""Zero-shot classification: every shape gets the class whose prompts lie nearest.

    python examples/zero_shot_classification.py --model outputs/model --benchmark modelnet40 \\
        --dataset data/modelnet40 --dataset_config colored_10k --output_dir outputs/modelnet40
    python examples/zero_shot_classification.py --model outputs/model --dataset outputs/triplets \\
        --labels_file examples/data/object_labels.csv --split_file outputs/splits.json --output_dir outputs/zero_shot

With `--benchmark` the clouds of a converted benchmark (`dataset_scripts/modelnet40.py`, `objaverse_lvis.py`,
`scanobjectnn.py`) are measured by a published protocol; `torchrun --nproc_per_node N` shares them among processes, and
a stopped run goes on where it was. Without it, those of a triplets dataset with the categories of `--labels_file`.

Prints each accuracy beside its chance level and its shuffled control, and writes `zero_shot.json` and `confusion.png`,
for a benchmark also `report.md`.

`ulip2 evaluate zero-shot` is the same; what happens stands in `modeling_ulip2/recipes/zero_shot.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.recipes.zero_shot import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
