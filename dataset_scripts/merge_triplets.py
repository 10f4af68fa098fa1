"""Makes one triplets dataset of several, as ULIP-2 pre-trains on Objaverse and ShapeNet; `ulip2 merge` is the same.

    python dataset_scripts/merge_triplets.py data/objaverse data/shapenet --output data/both

What happens stands in `modeling_ulip2/building/merging.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.building.merging import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
