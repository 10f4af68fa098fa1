"""Divides triplets into shapes to train on and shapes to test on; `ulip2 split` is the same.

    python dataset_scripts/split_triplets.py data/triplets data/split.json --share 0.2 --seed 0

What happens stands in `modeling_ulip2/building/splitting.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.building.splitting import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
