"""What a model knows of the objects in annotated scans, by the field's protocols.

    python examples/scenes.py --dataset SCENES --output_dir OUT

Recognition of given objects, average precision by ScanNet's rules with given masks and with proposals, semantic IoU
and recall of proposals, beside chance, shuffled embeddings and the frozen image tower on pictures of the objects'
points. `dataset_scripts/sweet_home_3d_homes.py` makes SCENES of nine furnished homes, complete and as a walk through
them shows them. The first three by name are reported apart. Writes `scenes.md`, `scenes.json` and pictures.

`ulip2 evaluate scenes` is the same; what happens stands in `modeling_ulip2/recipes/scenes.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.recipes.scenes import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
