"""Puts a folder of triplets on the Hugging Face Hub as a dataset; `ulip2 publish` is the same.

    python dataset_scripts/publish_triplets.py data/triplets --push-to-hub ORG/NAME
    python dataset_scripts/publish_triplets.py data/triplets --check

What happens stands in `modeling_ulip2/building/publishing/dataset.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.building.publishing.dataset import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
