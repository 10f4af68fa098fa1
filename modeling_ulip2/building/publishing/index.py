"""A search index on its way to the hub, where a hub name stands for each folder of this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, RepoCard

from modeling_ulip2.search.index import ShapeIndex, read_info
from modeling_ulip2.search.schema import CONFIG, ERRORS_FILE, FAISS_FILE, INFO_FILE, model_name
from modeling_ulip2.utils.places import is_hub_name

from .licenses import license_problems

CARD = "README.md"


def index_problems(folder: Path, model: str | None) -> list[str]:
    """What speaks against publishing an index: a part that is missing, a license, a model that nobody else has.

    Args:
        folder: of the index.
        model: hub repository of its model, which is fetched and compared; None: the one that the index names.
    """
    try:
        index = ShapeIndex.open(folder)
    except (OSError, ValueError) as error:
        return [str(error)]
    problems = []
    stored = index.info["model"]
    if model is None and not is_hub_name(stored):
        problems.append(
            f"it names its model by a folder of this machine, {stored}: publish that model first, and then name its "
            "repository with --model ORG/NAME"
        )
    elif model is not None:
        try:
            index.load_embedder(model, device="cpu")
        except (OSError, ValueError) as error:
            problems.append(f"--model {model}: {error}")
    if not (folder / CARD).is_file():
        return [*problems, f"it has no {CARD}: `ulip2 index … --append` writes one"]
    return problems + license_problems(RepoCard.load(folder / CARD).data.to_dict())


def told_info(info: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """The settings of an index as others may read them: hub names stay, and folders of this machine go."""
    collections = [
        {**entry, "place": entry["place"] if entry["place"] and is_hub_name(entry["place"]) else None}
        for entry in info.get("collections", [])
    ]
    return {**info, "model": model or info["model"], "collections": collections}


def upload_index(folder: Path, repo_id: str, model: str | None, api: HfApi) -> None:
    """Uploads an index: shards and FAISS file as they are, then settings and card, in which the hub's names stand.

    Nothing is changed in `folder`, which stays usable with the model that lies beside it.
    """
    upload = getattr(api, "upload_large_folder", None) or api.upload_folder
    allowed = [f"{CONFIG}/train-*.arrow", FAISS_FILE, ERRORS_FILE]
    upload(repo_id=repo_id, folder_path=folder, repo_type="dataset", allow_patterns=allowed)
    info = read_info(folder)
    told = told_info(info, model)
    card = (folder / CARD).read_text(encoding="utf-8")
    card = card.replace(f"by `{model_name(info['model'])}`", f"by `{told['model']}`")
    card = card.replace('open("…")', f'open("{repo_id}")').replace('load_dataset("…"', f'load_dataset("{repo_id}"')
    texts = {INFO_FILE: json.dumps(told, indent=2) + "\n", CARD: card}
    operations = [CommitOperationAdd(name, text.encode()) for name, text in texts.items()]
    api.create_commit(repo_id, operations, commit_message="Upload index", repo_type="dataset")
