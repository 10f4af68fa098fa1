"""Which framing shows a frozen tower best what the objects are: zero-shot accuracy of views, framing beside framing.

    python tests/benchmarks/bench_framing.py --meshes DIR --tower DIR [--labels CSV --objects 220 --seed 1]

DIR is a collection as `dataset_scripts/sweet_home_3d.py` writes it, the labels are those of the examples. The objects
are drawn from the *training* split of the quickstart, so that its test objects choose nothing. Every framing shows an
object four times, from azimuths 45, 135, 225 and 315 (two rings: two views each); the classes are the labels that two
objects of the collection or more have. Printed are the accuracies of single views and of the mean embedding of the
four, in %, and their differences to the first framing with 95 % intervals of a bootstrap over objects, paired. An
object without a readable mesh is named and left out.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

from quickstart import BACKGROUND, LABELS, NEAR_DUPLICATES  # noqa: E402

from modeling_ulip2.data.labels import read_labels  # noqa: E402
from modeling_ulip2.data.near_duplicates import near_duplicate_groups  # noqa: E402
from modeling_ulip2.data.splits import draw_test_ids  # noqa: E402
from modeling_ulip2.evaluation import load_templates  # noqa: E402
from modeling_ulip2.evaluation.metrics.controls import bootstrap_interval  # noqa: E402
from modeling_ulip2.geometry import Camera, MeshError, Renderer, read_mesh  # noqa: E402
from modeling_ulip2.geometry.cameras import PUBLISHED_RING  # noqa: E402
from modeling_ulip2.towers import load_tower  # noqa: E402
from modeling_ulip2.towers.prompts import class_embeddings  # noqa: E402

AZIMUTHS = (45.0, 135.0, 225.0, 315.0)
FRAMINGS: dict[str, list[Camera]] = {
    "published ring": [Camera(azimuth, **PUBLISHED_RING) for azimuth in AZIMUTHS],
    **{
        " and ".join(str(elevation) for elevation in dict.fromkeys(elevations)): [
            Camera(azimuth, elevation=elevation, fill=0.85, fit="view")
            for azimuth, elevation in zip(AZIMUTHS, elevations, strict=True)
        ]
        for elevations in ((15, 15, 15, 15), (20, 20, 20, 20), (25, 25, 25, 25), (15, 30, 15, 30), (15, 40, 15, 40))
    },
}
MEASURES = ("view top-1", "view top-5", "mean top-1", "mean top-5")


def draw(collection: Path, labels: dict[str, str], count: int, seed: int) -> tuple[list[str], list[str]]:
    """(paths of training objects, names of all classes)."""
    with (collection / "objects.csv").open(encoding="utf-8", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    counts = Counter(labels[path] for path in paths if path in labels)
    names = sorted(name for name, number in counts.items() if number > 1)
    test = draw_test_ids(paths, labels, 0, near_duplicate_groups(paths, NEAR_DUPLICATES))  # the quickstart's own seed
    training = [path for path in paths if path not in test and labels.get(path) in names]
    random.Random(seed).shuffle(training)
    return training[:count], names


def hits(embeds: torch.Tensor, classes: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """(N, 4): what each object adds to each of MEASURES, from its (N, views, D) embeddings."""
    columns = []
    for shown in (embeds, F.normalize(embeds.mean(dim=1, keepdim=True), dim=-1)):
        nearest = (shown @ classes.T).topk(5).indices == labels[:, None, None]  # (N, views, 5)
        columns += [nearest[..., 0].double().mean(dim=1), nearest.any(dim=-1).double().mean(dim=1)]
    return torch.stack(columns, dim=1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", type=Path, required=True, help="folder with objects.csv")
    parser.add_argument("--tower", required=True)
    parser.add_argument("--labels", type=Path, default=LABELS)
    parser.add_argument("--objects", type=int, default=220)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    labels = read_labels(arguments.labels)
    paths, names = draw(arguments.meshes, labels, arguments.objects, arguments.seed)
    tower = load_tower(arguments.tower, device="cuda" if torch.cuda.is_available() else "cpu")
    classes = class_embeddings(tower.encode_text, names, load_templates("modelnet40_64")).cpu().float()  # (C, D)
    cameras = list(dict.fromkeys(camera for framing in FRAMINGS.values() for camera in framing))
    renderer = Renderer(background=BACKGROUND)

    shown, kept, start = [], [], time.monotonic()
    for number, path in enumerate(paths, start=1):
        try:
            views = renderer.render(read_mesh(arguments.meshes / path, strict=False), cameras).rgb
        except (MeshError, OSError) as error:
            print(f"left out: {path}: {error}", file=sys.stderr)
            continue
        embeds = tower.encode_images([Image.fromarray(view) for view in views])
        shown.append(F.normalize(embeds.float(), dim=-1).cpu())  # (views, D)
        kept.append(path)
        if number % 20 == 0 or number == len(paths):
            print(f"{number} of {len(paths)} objects after {time.monotonic() - start:.0f} s", file=sys.stderr)
    if not kept:
        sys.exit(f"none of the {len(paths)} objects of {arguments.meshes} could be shown")

    embeds = torch.stack(shown)  # (N, views, D)
    truth = torch.tensor([names.index(labels[path]) for path in kept])
    results = {
        title: hits(embeds[:, [cameras.index(camera) for camera in framing]], classes, truth)
        for title, framing in FRAMINGS.items()
    }
    first = next(iter(results.values()))
    print(f"{len(kept)} objects of {len(names)} classes, {os.path.basename(arguments.tower)}; %")
    print(f"{'framing':>16} " + " ".join(f"{measure:>24}" for measure in MEASURES))
    for title, each in results.items():
        cells = []
        for column in range(len(MEASURES)):
            cell = f"{100 * each[:, column].mean():.1f}"
            if each is not first:
                difference = each[:, column] - first[:, column]
                low, high = bootstrap_interval(len(kept), lambda rows, d=difference: float(d[rows].mean()))
                cell += f" ({100 * difference.mean():+.1f}: {100 * low:+.1f} to {100 * high:+.1f})"
            cells.append(f"{cell:>24}")
        print(f"{title:>16} " + " ".join(cells))


if __name__ == "__main__":
    main()
