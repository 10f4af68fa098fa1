"""Options of `ulip2 evaluate`: a dataclass for each task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from modeling_ulip2.utils.places import OWN_DEFAULT, default_feature_cache


def _own_model() -> Any:
    """Field of the model that is measured."""
    return field(default=None, metadata={"help": f"Folder or hub name of a Ulip2Model; {OWN_DEFAULT}."})


def _tower_elsewhere(whose: str = "model's") -> Any:
    """Field of the image-text model where it lies elsewhere than the checkpoint says."""
    return field(default=None, metadata={"help": f"Image-text model, where the {whose} own has moved."})


def _ids_of_split(default: str = "all") -> Any:
    """Field of the file that says which shapes are measured."""
    return field(default=None, metadata={"help": f'JSON {{"train": [ids], "test": [ids]}}; default: {default}.'})


def _which_split() -> Any:
    """Field of the part of that file."""
    return field(default="test", metadata={"help": "Which ids of split_file.", "choices": ["train", "test"]})


def _prompts(of: str) -> Any:
    """Field of the prompts that a name stands in."""
    return field(default="modelnet40_64", metadata={"help": f"Prompts of a {of}: modelnet40_64."})


def _batches() -> Any:
    """Field of the size of a batch."""
    return field(default=16, metadata={"help": "Clouds per forward pass."})


@dataclass
class ZeroShotArguments:
    """Zero-shot classification."""

    _argument_group_name = "evaluation"

    dataset: str = field(metadata={"help": "Folder or hub name of a converted benchmark or of triplets."})
    output_dir: str = field(metadata={"help": "Where zero_shot.json and confusion.png go."})
    model: str | None = _own_model()
    benchmark: str | None = field(
        default=None,
        metadata={"help": "modelnet40, objaverse_lvis or scanobjectnn, where the dataset is one; default: triplets."},
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Config of the benchmark, e.g. PB_T50_RS; default: the only one."}
    )
    protocol: str | None = field(
        default=None,
        metadata={"help": "ulip2, openshape or uni3d, for a benchmark; default: of the model's own project."},
    )
    labels_file: str | None = field(
        default=None, metadata={"help": "CSV with the columns path (the id of a triplet) and category."}
    )
    split_file: str | None = _ids_of_split()
    split: str = _which_split()
    templates: str = _prompts("class")
    class_names: str | None = field(
        default=None,
        metadata={
            "help": "Classes to choose from: modelnet40, scanobjectnn, shapenet55, objaverse_lvis; "
            "default: the categories of the evaluated shapes."
        },
    )
    num_workers: int | None = field(
        default=None, metadata={"help": "Processes that prepare a benchmark's clouds; default: the cores to spare."}
    )
    class_cache: str | None = field(
        default=None, metadata={"help": "Class embeddings of benchmarks, to be shared by runs; default: output_dir."}
    )
    tower: str | None = _tower_elsewhere()
    batch_size: int = _batches()
    seed: int = field(default=0, metadata={"help": "Seed of the shuffled control and the bootstrap."})


@dataclass
class RetrievalArguments:
    """Retrieval by text, by picture, and of texts by shape."""

    _argument_group_name = "evaluation"

    dataset: str = field(metadata={"help": "Folder or hub name of a triplets dataset."})
    output_dir: str = field(metadata={"help": "Where retrieval.json and queries.png go."})
    model: str | None = _own_model()
    query: list[str] = field(
        default_factory=list, metadata={"help": "Texts to search for; default: the largest categories, or some names."}
    )
    top_k: int = field(default=5, metadata={"help": "Shapes to show for each query."})
    labels_file: str | None = field(
        default=None,
        metadata={"help": "CSV with the columns path and category: marks right answers to the default queries."},
    )
    split_file: str | None = _ids_of_split()
    split: str = _which_split()
    templates: str = _prompts("category")
    images: bool = field(default=True, metadata={"help": "Measure image -> shape too, one view per shape."})
    tower: str | None = _tower_elsewhere()
    batch_size: int = _batches()
    seed: int = field(default=0, metadata={"help": "Seed of the views, the shuffled control and the bootstrap."})


@dataclass
class LeaderboardArguments:
    """Every benchmark that is found, for several models."""

    _argument_group_name = "evaluation"

    benchmarks: str = field(metadata={"help": "Folder of converted benchmarks, or hub name of one."})
    output_dir: str = field(metadata={"help": "Where the tables and the runs' folders go."})
    models: list[str] = field(
        default_factory=list, metadata={"help": f"Folders or hub names of Ulip2Models; {OWN_DEFAULT}."}
    )
    protocol: str | None = field(
        default=None, metadata={"help": "ulip2, openshape or uni3d; default: of each model's own project."}
    )
    tower: str | None = _tower_elsewhere("models'")
    batch_size: int = _batches()
    num_workers: int | None = field(
        default=None, metadata={"help": "Processes that prepare clouds; default: the cores to spare."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of the shuffled control and the bootstrap."})


@dataclass
class CaptionMeasureArguments:
    """Captions beside their controls."""

    _argument_group_name = "evaluation"

    dataset: str = field(metadata={"help": "Shapes: a triplets dataset, or a folder of texts that holds clouds."})
    output_dir: str = field(metadata={"help": "Where predictions, figures and the picture go."})
    model: str | None = field(default=None, metadata={"help": "Folder or hub name of a captioning model."})
    predictions: str | None = field(
        default=None, metadata={"help": "Captions to measure instead: JSON lines with id and prediction."}
    )
    texts: str | None = field(
        default=None, metadata={"help": "Captions by id, the references; default: those of the triplets."}
    )
    split_file: str | None = _ids_of_split("all, without retrieval")
    split: str = _which_split()
    limit: int | None = field(default=None, metadata={"help": "Only so many shapes, drawn by the seed."})
    point_model: str | None = field(
        default=None, metadata={"help": "Ulip2Model that embeds points and names the tower; default: the model's own."}
    )
    tower: str | None = _tower_elsewhere("encoder's")
    prompt: str | None = field(
        default=None, metadata={"help": "What the user says beside the cloud (published: describe the 3d model.)."}
    )
    num_beams: int | None = field(default=None, metadata={"help": "Beams (published: 5)."})
    min_new_tokens: int | None = field(default=None, metadata={"help": "Shortest caption (published: 10)."})
    max_new_tokens: int | None = field(default=None, metadata={"help": "Longest caption (published: 80)."})
    length_penalty: float | None = field(
        default=None, metadata={"help": "Exponent of the length; 0: none (published: 0)."}
    )
    batch_size: int = field(default=16, metadata={"help": "Shapes per call of generate."})
    tokenizer: str | None = field(
        default=None, metadata={"help": "ptb or regex; default: ptb, as in the papers, where there is Java."}
    )
    views: bool = field(default=True, metadata={"help": "Compare captions with the views, too."})
    sheet_shapes: int = field(default=20, metadata={"help": "Shapes in the picture."})
    feature_cache: str = field(
        default_factory=default_feature_cache, metadata={"help": "Where the encoder's features are kept."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of limit, exchange of points, bootstrap and picture."})


@dataclass
class RobustnessArguments:
    """Zero-shot accuracy of corrupted clouds."""

    _argument_group_name = "evaluation"

    dataset: str = field(metadata={"help": "Folder or hub name of a triplets dataset."})
    labels_file: str = field(metadata={"help": "CSV with the columns path (the id of a triplet) and category."})
    output_dir: str = field(metadata={"help": "Where the picture, the table and the figures go."})
    model: str | None = _own_model()
    split_file: str | None = _ids_of_split("all shapes")
    meshes: list[str] = field(
        default_factory=list, metadata={"help": "Folders or hub names of the meshes whose paths in them are the ids."}
    )
    classifiers: list[str] = field(
        default_factory=list,
        metadata={"help": "Folders or hub names of Ulip2ForPointCloudClassification to draw beside it."},
    )
    curves: list[str] = field(
        default_factory=list,
        metadata={"help": "points, noise, half_space, ball, rotation_y, rotation, color and views; default: all."},
    )
    templates: str = _prompts("class")
    tower: str | None = _tower_elsewhere()
    limit: int | None = field(default=None, metadata={"help": "Only the first N shapes."})
    batch_size: int = _batches()
    seed: int = field(default=0, metadata={"help": "Seed of the corruptions and the bootstrap."})


@dataclass
class ScenesArguments:
    """Objects in annotated scans, by the field's protocols."""

    _argument_group_name = "evaluation"

    dataset: str = field(metadata={"help": "Scenes with annotation: a folder or hub name of a scene dataset."})
    output_dir: str = field(metadata={"help": "Where the table, the figures and the pictures go."})
    model: str | None = _own_model()
    configs: list[str] = field(
        default_factory=lambda: ["complete", "walk"],
        metadata={"help": "Configs of the dataset, each a table of its own."},
    )
    num_tuning: int = field(
        default=3, metadata={"help": "So many scenes, the first by name, are reported apart: settings come from them."}
    )
    proposals: bool = field(default=True, metadata={"help": "Look for objects, too, beside the annotated ones."})
    tower_views: int = field(
        default=2, metadata={"help": "Pictures of an object that the image tower sees; 0: no image tower."}
    )
    pictures: int = field(default=2, metadata={"help": "So many reported scenes are drawn, by name and by truth."})
    min_region_size: int = field(default=100, metadata={"help": "Points that an object must have (ScanNet: 100)."})
    templates: str = _prompts("category")
    tower: str | None = _tower_elsewhere()
    limit: int | None = field(default=None, metadata={"help": "Only the first N scenes of each config, by name."})
    batch_size: int = _batches()
    seed: int = field(default=0, metadata={"help": "Seed of the controls and the bootstrap."})


# The description of each recipe, by its name.
DESCRIPTIONS = {
    "zero_shot": """Zero-shot classification: every shape gets the class whose prompts lie nearest.

With --benchmark the clouds of a converted benchmark are measured by a published protocol; torchrun shares them among
processes, and a stopped run goes on where it was. Without it, those of a triplets dataset with the categories of
--labels_file. Prints each accuracy beside its chance level and its shuffled control, and writes zero_shot.json and
confusion.png, for a benchmark also report.md.
""",
    "retrieval": """Retrieval among the shapes of a triplets dataset: by text, by image, and back from shapes to text.

Prints the nearest shapes of every query and R@1/5/10 and median rank beside chance and shuffled control; writes
retrieval.json and the picture queries.png.
""",
    "leaderboard": """Measure every benchmark that is found, for several models, beside the published figures.

--benchmarks holds folders that dataset_scripts/modelnet40.py, objaverse_lvis.py or scanobjectnn.py wrote. Writes
leaderboard.md and leaderboard.tex, and a folder for each run. What is finished is not measured again.
""",
    "captioning": """Caption shapes that a model was not trained on, and measure the captions beside three controls.

Controls: the captions that the model makes of other shapes' points; the caption of the training shape whose point
embedding is nearest; and what the language model says without points. A stopped run goes on. --predictions measures
captions that were made elsewhere. If its captions suit other shapes as well, or are the same for most shapes, the
terminal, the report and captioner_report.json beside the model say so, and the exit status is 1.
""",
    "robustness": """Measure zero-shot accuracy against what happens to clouds outside a dataset.

Fewer points, noise, occlusion, rotation, lost color, and views from few sides.

Any classifiers of ulip2 finetune (--classifiers) are measured beside it. Writes robustness.png, robustness.md and
robustness.json. Every level is written when it is measured, and a second run goes on from there. --meshes, the folders
from which the dataset was built, adds clouds of more points than are stored, and partial views.
""",
    "scenes": """Measure what a model knows of the objects in annotated scans, by the field's protocols.

Recognition of given objects (top-1, top-5, over objects and over classes); average precision of named masks by the
rules of ScanNet's benchmark, with given masks and with proposals; semantic IoU; recall of proposals. Beside the model
stand its shuffled embeddings, chance, and the frozen image tower on pictures of the objects' points. The first scenes
by name, from which settings are chosen, are reported apart. Writes scenes.md, scenes.json and pictures of scenes in
the colors of predicted and true names. Needs the extra scenes (pip install "modeling-ulip2[scenes]") and a dataset of
scenes: dataset_scripts/sweet_home_3d_homes.py makes one of nine homes.
""",
}
