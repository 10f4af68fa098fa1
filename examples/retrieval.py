"""Retrieval among the shapes of a triplets dataset: by text, by image, and back from shapes to text.

    python examples/retrieval.py --model outputs/model --dataset outputs/triplets --split_file outputs/splits.json \
        --query "a wooden chair" "a potted plant" --output_dir outputs/retrieval

Prints the nearest shapes of every query and R@1/5/10 and median rank beside chance and shuffled control; writes
`retrieval.json` and the picture `queries.png`.

`ulip2 evaluate retrieval` is the same; what happens stands in `modeling_ulip2/recipes/retrieval.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.recipes.retrieval import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
