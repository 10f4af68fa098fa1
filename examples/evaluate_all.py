"""Every benchmark that is found, for several checkpoints, in one table with the published figures.

    python examples/evaluate_all.py --models outputs/model SFXX-converted --benchmarks data --output_dir outputs/all
    torchrun --nproc_per_node 8 examples/evaluate_all.py …

`--benchmarks` holds folders that `dataset_scripts/modelnet40.py`, `objaverse_lvis.py` or `scanobjectnn.py` wrote.
Writes `leaderboard.md` and `leaderboard.tex`, and a folder for each run. What is finished is not measured again.

`ulip2 evaluate leaderboard` is the same; what happens stands in `modeling_ulip2/recipes/leaderboard.py`.
"""

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from modeling_ulip2.recipes.leaderboard import main
from modeling_ulip2.utils.scripts import run_main

if __name__ == "__main__":
    run_main(main)
