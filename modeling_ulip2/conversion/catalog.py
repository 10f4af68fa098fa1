"""Every published checkpoint that the package opens, by name: what it is, and where it lies.

Nothing heavy is imported, so that the table is printed at once. Sizes and checksums stand here only where a source
states them; `None` is unknown, and then the hub is asked when the file is fetched.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modeling_ulip2.utils.markdown import markdown_table

from .releases import FOUR_SETS, NO_LVIS, RELEASES, SLIP, Release


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on the hub.

    size, sha256: bytes and checksum; None: not stated by any source that was found.
    revision: of the repository, to which size and checksum belong.
    stated_by: the source of size and checksum, where it is not the hub itself.
    """

    repo_id: str
    path: str
    repo_type: str = "model"
    size: int | None = None
    sha256: str | None = None
    revision: str | None = None
    stated_by: str | None = None

    @property
    def address(self) -> str:
        kind = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        return f"https://huggingface.co/{kind}{self.repo_id}"


@dataclass(frozen=True)
class NamedRelease:
    """One published checkpoint.

    release: what it is.
    parameters: of the encoder; of a tower: of the whole model.
    file: where it lies; None: in no repository on the hub, see `note`.
    """

    name: str
    release: Release
    parameters: int
    file: HubFile | None
    note: str = ""

    @property
    def input(self) -> str:
        if self.release.model_type is None:
            return "images and texts"
        columns = {3: "xyz", 4: "xyz and height", 6: "xyz and rgb"}[self.release.fields.get("in_channels", 6)]
        if self.release.layout == "ULIP" and "in_channels" not in self.release.fields:
            columns = "xyz"  # PointNet++ and PointMLP of ULIP
        return f"{self.release.num_points:,} points, {columns}"

    @property
    def tower(self) -> str:
        return self.release.tower or self.release.tower_release or "none"


def _kind(kind: str, **changes: Any) -> Release:
    return replace(next(release for release in RELEASES if release.title == kind), **changes)


_WARP = "NVIDIA's WarpConvNet (warpconvnet/models/uni3d), of the repository at that revision"
_UNI3D_REVISION = "3d8233b76aa350d72f6213ecd2123c2026b42355"
_WITHOUT_LVIS = "ShapeNet, 3D-FUTURE, ABO, and Objaverse without Objaverse-LVIS, as prepared by OpenShape"


def _ulip(path: str, **stated: Any) -> HubFile:
    return HubFile("SFXX/ulip", path, "dataset", **stated)


def _ulip1(file: str) -> HubFile:
    return _ulip(f"ULIP-1/pretrained_models/ckpt_zero-sho_classification/{file}")


def _uni3d(letter: str, parameters: int, folder: str, size: int, sha256: str, **changes: Any) -> NamedRelease:
    name = f"uni3d-{folder.replace('/', '-').replace('mnet40', 'modelnet40').replace('scanobjnn', 'scanobjectnn')}"
    known = {"Ti": (), "S": ()}.get(letter, ((f"Uni3D-{letter}", NO_LVIS if "no-lvis" in folder else FOUR_SETS),))
    changes = {"published": known} | changes
    if "no-lvis" in folder:
        changes["training_data"] = _WITHOUT_LVIS
    release = _kind(f"Uni3D-{letter}", **changes)
    place = f"modelzoo/uni3d-{folder}/model.pt"
    file = HubFile("BAAI/Uni3D", place, size=size, sha256=sha256, revision=_UNI3D_REVISION, stated_by=_WARP)
    return NamedRelease(name, replace(release, title=f"Uni3D-{letter} ({name})"), parameters, file)


_BEST = {"published": (("Uni3D-g, best of the released", FOUR_SETS),)}
_OPENSHAPE = "OpenShape PPAT, aligned with OpenCLIP ViT-bigG-14"

CATALOG: tuple[NamedRelease, ...] = (
    NamedRelease(
        "ulip2-pointbert-10k-colored",
        _kind("ULIP-2 Point-BERT, 10k colored points"),
        32_499_072,
        _ulip(
            "ULIP-2/pretrained_models/ULIP-2-PointBERT-10k-xyzrgb-pc-vit_g-objaverse_shapenet-pretrained.pt",
            size=402_018_241,
            sha256="a4b5ed9799d5841a1646e0fb7d24cb8dcdd3b3e6fab2e2575de2531f71274adb",
            stated_by="users of the file, who hashed their copies",
        ),
    ),
    NamedRelease(
        "ulip2-pointbert-8k-xyz",
        _kind("ULIP-2 Point-BERT, 8,192 points without color (the encoder of X-InstructBLIP)"),
        32_498_688,
        None,
        "it is part of X-InstructBLIP's checkpoint, which LAVIS offers for download",
    ),
    NamedRelease(
        "ulip2-pointbert-8k-xyz-slip",
        _kind("ULIP-2 Point-BERT, 8k points, aligned with SLIP"),
        21_858_816,
        _ulip("ULIP-2/pretrained_models/ULIP-2-PointBERT-8k-xyz-pc-slip_vit_b-objaverse-pretrained.pt"),
    ),
    NamedRelease(
        "ulip2-pointnext-s",
        _kind("ULIP-2 PointNeXt-S, 2k points"),
        1_363_264,
        _ulip("ULIP-2/pretrained_models/ULIP-2-PointNeXt-objavserse_shapenet-2KPTS-vit_g-pretrained.pt"),
    ),
    NamedRelease("ulip1-pointbert", _kind("ULIP Point-BERT"), 21_858_816, _ulip1("checkpoint_pointbert.pt")),
    NamedRelease("ulip1-pointnet2", _kind("ULIP PointNet++ (SSG)"), 1_465_408, _ulip1("checkpoint_pointnet2_ssg.pt")),
    NamedRelease("ulip1-pointmlp", _kind("ULIP PointMLP"), 13_228_224, _ulip1("checkpoint_pointmlp.pt")),
    NamedRelease("ulip1-pointnext-s", _kind("ULIP PointNeXt-S"), 1_363_264, _ulip1("checkpoint_pointnext.pt")),
    NamedRelease(
        "pointllm-pointbert",
        _kind("Point-BERT of PointLLM: ULIP-2's training on 8,192 colored points"),
        21_859_200,
        HubFile("RunsenXu/PointLLM_7B_v1.1_init", "point_bert_v1.2.pt"),
    ),
    NamedRelease(
        "openshape-ppat-vitg14",
        _kind(_OPENSHAPE),
        31_669_440,
        HubFile("OpenShape/openshape-pointbert-vitg14-rgb", "model.pt"),
    ),
    NamedRelease(
        "openshape-ppat-vitg14-no-lvis",
        _kind(
            _OPENSHAPE,
            title=f"{_OPENSHAPE}, trained without Objaverse-LVIS",
            source="https://huggingface.co/OpenShape/openshape-pointbert-no-lvis",
            published=(("OpenShape, Point-BERT", NO_LVIS),),
            training_data=_WITHOUT_LVIS,
        ),
        31_669_440,
        HubFile("OpenShape/openshape-pointbert-no-lvis", "model.pt"),
    ),
    NamedRelease(
        "openshape-ppat-vitg14-shapenet",
        _kind(
            _OPENSHAPE,
            title=f"{_OPENSHAPE}, trained on ShapeNet alone",
            source="https://huggingface.co/OpenShape/openshape-pointbert-shapenet",
            published=(("OpenShape, Point-BERT", "ShapeNet"),),
            training_data="ShapeNet, as prepared by OpenShape",
        ),
        31_669_440,
        HubFile("OpenShape/openshape-pointbert-shapenet", "model.pt"),
    ),
    NamedRelease(
        "openshape-ppat-vitl14",
        _kind("OpenShape PPAT, aligned with CLIP ViT-L/14"),
        25_297_728,
        HubFile("OpenShape/openshape-pointbert-vitl14-rgb", "model.pt"),
    ),
    NamedRelease(
        "openshape-ppat-vitb32",
        _kind("OpenShape PPAT, aligned with CLIP ViT-B/32"),
        25_297_728,
        HubFile("OpenShape/openshape-pointbert-vitb32-rgb", "model.pt"),
    ),
    _uni3d("Ti", 6_024_192, "ti", 12_835_148, "6ff7e821e6997cb814b529e6dc3b224ad8349500471c8517e491685a718688e0"),
    _uni3d(
        "Ti", 6_024_192, "ti-no-lvis", 12_835_148, "4acc1369542311ba3c813b1e5160c897c04eb5a06bd1f0ab47e8c289e0b43719"
    ),
    _uni3d("S", 22_104_192, "s", 45_713_996, "9a6342fda2245f00fa0200eb7fc667ee67fee9a953c82961e04d242130a3350f"),
    _uni3d(
        "S", 22_104_192, "s-no-lvis", 45_713_996, "b0198692d98b2cde7b8ad19ffdba81a2d07553781189861eced37a4bdd2720ac"
    ),
    _uni3d("B", 86_163_840, "b", 178_008_217, "bb533f918957e939f0e500376bef5166437883443da10fd9adccde0d1b512fba"),
    _uni3d(
        "B", 86_163_840, "b-no-lvis", 178_008_217, "da0da5bc124f2e8e38bf754de0ebce7075a1eb9dbb0d468027adbf6bc8974a9f"
    ),
    _uni3d("L", 303_621_952, "l", 614_861_649, "540a3cafac52c251cbda1844d109bc598f142b4f5a2118db87cd722b01800c20"),
    _uni3d(
        "L", 303_621_952, "l-no-lvis", 614_861_649, "b3bbdb3eb51426c6cdf7d7d43460c7cb7dabdcfef5bd390655796791883c0268"
    ),
    _uni3d("g", 1_011_421_312, "g", 2_034_909_361, "aa1f163bb8c34d7eb4bbb7187e8aaf78879b29df02d08acfbeb0671e2a218c3f"),
    _uni3d(
        "g",
        1_011_421_312,
        "g-no-lvis",
        2_034_909_361,
        "6ab35a98481d9862c98ebab1d2c25102ce968b214a6324d9f38fa8091f33babc",
    ),
    _uni3d(
        "g",
        1_011_421_312,
        "g/lvis",
        2_034_909_361,
        "f0d8ecd047935b037fcc40bdfd66bef632631a968c37fef0f90f1351641573c3",
        **_BEST,
    ),
    _uni3d(
        "g",
        1_011_421_312,
        "g/mnet40",
        2_034_909_361,
        "bcbcd6bea00e55d031b083ff06d4783e3d23bff0f02f23f076ed98db58b8a468",
        **_BEST,
    ),
    _uni3d(
        "g",
        1_011_421_312,
        "g/scanobjnn",
        2_034_909_361,
        "d2b26da86c71ce48383a915a3f320b89843c774064edad2728324ef71145149b",
        **_BEST,
    ),
    NamedRelease(
        "pointbert-shapenet",
        _kind("Point-BERT after its self-supervised pre-training"),
        21_858_816,
        _ulip("ULIP-1/initialize_models/point_bert_pretrained.pt"),
    ),
    NamedRelease(SLIP, _kind("SLIP ViT-B/16"), 149_619_969, _ulip("ULIP-1/initialize_models/slip_base_100ep.pt")),
)
_BY_NAME = {entry.name: entry for entry in CATALOG}


class UnknownReleaseError(ValueError):
    """No published checkpoint of that name."""


def is_release(name: str | Path) -> bool:
    """Whether a published checkpoint has this name, and nothing here does."""
    return str(name) in _BY_NAME and not Path(name).exists()


def find_named(name: str) -> NamedRelease:
    """The published checkpoint of this name.

    Raises:
        UnknownReleaseError: there is none; the message has the nearest names.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    near = difflib.get_close_matches(name.lower(), _BY_NAME, n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(near)}?" if near else "`ulip2 releases` lists them."
    raise UnknownReleaseError(f"{name} is no published checkpoint that the package knows: {advice}")


def find_by_checksum(sha256: str) -> NamedRelease | None:
    """The published checkpoint whose file has this SHA-256, where it is known."""
    return next((entry for entry in CATALOG if entry.file and entry.file.sha256 == sha256), None)


HEADER = ("name", "parameters", "input", "image-text model", "license", "size")


def table_rows(entries: Sequence[NamedRelease] = CATALOG) -> list[tuple[str, ...]]:
    """A row for each checkpoint, under `HEADER`."""
    return [
        (
            entry.name,
            f"{entry.parameters / 1e6:.1f} M",
            entry.input,
            entry.tower,
            entry.release.license,
            _size(entry.file),
        )
        for entry in entries
    ]


def facts(entry: NamedRelease) -> list[tuple[str, str]]:
    """Everything that is known of a checkpoint, as rows of name and value."""
    release, file = entry.release, entry.file
    rows = [
        ("name", entry.name),
        ("what", release.title),
        ("parameters", f"{entry.parameters:,} of the {'model' if release.model_type is None else 'encoder'}"),
        ("input", entry.input),
        ("image-text model", f"{entry.tower} ({release.tower_note})" if release.tower_note else entry.tower),
        ("license", release.license),
        ("paper", release.paper),
        ("training data", release.training_data),
        ("source", release.source),
    ]
    if file is None:
        rows.append(("where", f"in no repository on the hub: {entry.note}"))
    else:
        rows += [("where", file.address), ("file", file.path), ("size", _size(file))]
        rows.append(("SHA-256", file.sha256 or "not known; the hub states it when the file is fetched"))
        if file.stated_by:
            rows.append(("stated by", file.stated_by))
    rows += release.accuracy or [("accuracy", "none is published")]
    return rows


def catalog_markdown() -> str:
    """The catalog as a table in Markdown, with the figures that the authors report and the places."""
    header = (*HEADER[:-1], "zero-shot top-1 (ModelNet40, Objaverse-LVIS)", "where")
    rows = []
    for entry, row in zip(CATALOG, table_rows(), strict=True):
        figures = dict(entry.release.accuracy)
        shown = [figures.get(f"{benchmark}, zero-shot, top-1 / top-5", "") for benchmark in _SHOWN]
        where = f"[{entry.file.repo_id}]({entry.file.address})" if entry.file else "not on the hub"
        reported = ", ".join(figure.partition(" / ")[0] or "-" for figure in shown) if any(shown) else "-"
        rows.append((f"`{row[0]}`", *row[1:-1], reported, where))
    return "\n".join(markdown_table(header, rows)).strip()


_SHOWN = ("ModelNet40", "Objaverse-LVIS")


def _size(file: HubFile | None) -> str:
    if file is None:
        return "not on the hub"
    return "not stated" if file.size is None else f"{file.size / 1e6:,.0f} MB"
