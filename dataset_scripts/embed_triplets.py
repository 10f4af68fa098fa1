"""Adds a tower's embeddings to a folder of triplets; `ulip2 embed-triplets` is the same.

    python dataset_scripts/embed_triplets.py data/triplets --tower towers/clip

What happens stands in `modeling_ulip2/building/embedding.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.building.embedding import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
