"""Looks a folder of triplets over: counts, captions, defects, objects that look the same; `ulip2 inspect` is the same.

    python dataset_scripts/inspect_triplets.py data/triplets

What happens stands in `modeling_ulip2/building/inspection/inspect.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.building.inspection.inspect import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
