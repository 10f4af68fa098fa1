"""Makes a dataset of published triplets in the layout of their release; `ulip2 convert-triplets` is the same.

    python dataset_scripts/convert_release.py ulip-objaverse --release ULIP-Objaverse_triplets --output DIR

What happens stands in `modeling_ulip2/building/releases/convert.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.building.releases.convert import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
