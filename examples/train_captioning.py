"""Teaches a language model to describe shapes that a frozen ULIP-2 encoder sees; so does `ulip2 finetune captioning`.

    python examples/train_captioning.py --config examples/configs/captioning.yaml --point_model MODEL \
        --language_model LM --dataset TRIPLETS --texts DESCRIPTIONS --split_file SPLIT --output_dir OUT
    torchrun --nproc_per_node 8 examples/train_captioning.py --config examples/configs/x_instructblip.yaml …

What happens stands in `modeling_ulip2/recipes/captioner_training.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.recipes.captioner_training import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
