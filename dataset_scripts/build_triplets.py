"""Makes triplets of a folder of meshes: points, views and ranked captions; `ulip2 build` is the same.

    python dataset_scripts/build_triplets.py --meshes data/sweet_home_3d --output data/triplets --tower towers/conse

What happens stands in `modeling_ulip2/building/meshes.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.building.meshes import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
