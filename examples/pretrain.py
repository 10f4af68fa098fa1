"""Aligns a point encoder with a frozen image-text model on triplets, as ULIP-2 does; `ulip2 pretrain` is the same.

    python examples/pretrain.py --dataset outputs/triplets --tower outputs/conse --output_dir outputs/model
    python examples/pretrain.py --config examples/configs/ulip2_shapenet.yaml --dataset … --output_dir …
    torchrun --nproc_per_node 8 examples/pretrain.py --config …
    accelerate launch --config_file examples/configs/accelerate/eight_gpus.yaml examples/pretrain.py --config …

What happens stands in `modeling_ulip2/recipes/pretraining.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.recipes.pretraining import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
