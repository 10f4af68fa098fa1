"""Describes each shape of a triplets dataset, from its name and main colors; `ulip2 describe` is the same.

    python dataset_scripts/describe_shapes.py --triplets outputs/quickstart/dataset --output outputs/descriptions

What happens stands in `modeling_ulip2/building/describing.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.building.describing import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
