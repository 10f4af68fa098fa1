"""Fine-tunes a point encoder for classification, or probes it; `ulip2 finetune` is the same.

    python examples/finetune_classification.py --config examples/configs/finetune_pointnext_s_scanobjectnn.yaml \
        --dataset SCANOBJECTNN --dataset_config PB_T50_RS --model_name_or_path MODEL --output_dir OUT
    python examples/finetune_classification.py --config examples/configs/finetune_quickstart.yaml \
        --dataset TRIPLETS --labels_file LABELS --split_file SPLIT --model_name_or_path MODEL \
        --initializations pretrained scratch --methods finetune linear_probe --shots 0 1 4 16 --output_dir OUT

What happens stands in `modeling_ulip2/recipes/finetuning.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.recipes.finetuning import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
