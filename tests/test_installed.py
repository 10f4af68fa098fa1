"""What an installation can do without extras and with each of them, and what it says of those that are missing.

The quick tests hide the packages that an extra does not bring. The slow one is the real thing: the wheel, in
environments of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modeling_ulip2.utils.packages import EXTRAS
from tests.dataset_scripts.shapes import write_box
from tests.documents.blocks import read_blocks
from tests.documents.commands import commands
from tests.evaluation.world import build_world

ROOT = Path(__file__).parents[1]

# The smallest use of each extra, "" is none; `world` and `out` are folders, `main` is the command `ulip2`.
USES = {
    "": """
        from modeling_ulip2 import Ulip2Embedder
        assert main(["info", f"{world}/model"]) == 0
        embedder = Ulip2Embedder.from_pretrained(f"{world}/model", device="cpu")
        cloud = np.load(f"{world}/clouds/a.npy")
        assert embedder.embed_shapes([cloud, f"{world}/clouds/a.npy", f"{world}/meshes/box.obj"]).shape == (3, 24)
    """,
    "mesh": """
        from modeling_ulip2.geometry import Renderer, camera_ring, read_mesh
        views = Renderer("numba", 32).render(read_mesh(f"{world}/meshes/box.obj"), camera_ring(2)).rgb
        assert views.shape == (2, 32, 32, 3) and views.max() > 0
    """,
    "las": """
        import laspy
        from modeling_ulip2.geometry import read_shape
        las = laspy.LasData(laspy.LasHeader(version="1.2", point_format=0))
        las.x, las.y, las.z = np.random.default_rng(0).random((3, 50))
        for name in ("cloud.las", "cloud.laz"):
            las.write(f"{out}/{name}")
            assert read_shape(f"{out}/{name}", 20).xyz.shape == (50, 3)
    """,
    "data": """
        from modeling_ulip2.data.reading import read_triplets
        assert len(read_triplets(f"{world}/dataset")) == 12
        assert main(["inspect", f"{world}/dataset", "--output", f"{out}/report", "--num-proc", "0"]) == 0
    """,
    "search": """
        assert main(["index", f"{world}/clouds", f"{out}/index", "--model", f"{world}/model"]) == 0
        assert main(["search", f"{out}/index", "--shape", f"{world}/clouds/a.npy", "--top_k", "1"]) == 0
    """,
    "scenes": """
        import zipfile
        from pathlib import Path
        corners = "".join(f"<point x='{x}' y='{y}'/>" for x, y in ((0, 0), (400, 0), (400, 300), (0, 300)))
        wall = "<wall id='a' xStart='0' yStart='0' xEnd='400' yEnd='0' thickness='10'/>"
        with zipfile.ZipFile(f"{out}/room.sh3d", "w") as archive:
            archive.writestr("Home.xml", f"<home>{wall}<room>{corners}</room></home>")
        from modeling_ulip2.scenes.dataset import read_scenes, write_scenes
        from modeling_ulip2.scenes.reading import read_scene
        from modeling_ulip2.scenes.scanning import scan_walk
        from modeling_ulip2.scenes.sources.sweet_home.file import read_home_file
        seen = scan_walk(read_home_file(Path(f"{out}/room.sh3d")))
        write_scenes(Path(f"{out}/scenes/walk/train-00000-of-00001.parquet"), [seen])
        assert len(read_scenes(f"{out}/scenes", "walk")[0].xyz) == len(seen.xyz) > 0
        assert set(read_scene(f"{out}/room.sh3d").categories) == {"wall", "floor", "ceiling"}
        draw = np.random.default_rng(0).random
        floor, box = draw((4000, 3)) * [4, 0.02, 4], draw((2000, 3)) * [0.6, 0.8, 0.6] + [1, 0.02, 1]
        np.save(f"{out}/room.npy", np.concatenate([floor, box]).astype(np.float32))
        given = [f"{out}/room.npy", "--up-axis", "y", "--unit", "m", "--labels", "chair", "lamp"]
        assert main(["scene", *given, "--model", f"{world}/model", "-o", f"{out}/room.json"]) == 0
    """,
    "train": """
        given = ["--dataset", f"{world}/dataset", "--tower", f"{world}/tower", "--use_features", "false"]
        given += ["--hidden_size", "16", "--num_hidden_layers", "1", "--num_attention_heads", "2", "--num_groups", "4"]
        given += ["--group_size", "4", "--encoder_dims", "16", "--num_points", "32", "--max_steps", "1", "--use_cpu"]
        given += ["--per_device_train_batch_size", "4", "--report_to", "none", "--output_dir", f"{out}/model"]
        assert main(["pretrain", *given]) == 0
    """,
    "eval": """
        given = ["--model", f"{world}/model", "--dataset", f"{world}/dataset", "--split_file", f"{world}/split.json"]
        given += ["--labels_file", f"{world}/labels.csv", "--output_dir"]
        assert main(["evaluate", "zero-shot", *given, f"{out}/zero_shot"]) == 0
        assert main(["evaluate", "retrieval", *given, f"{out}/retrieval"]) == 0
    """,
    "openclip": """
        from modeling_ulip2.towers.slip import slip_tokenizer
        assert len(slip_tokenizer()("a wooden chair")["input_ids"]) == 5
    """,
    "offline": """
        from modeling_ulip2.towers.conse import main as build
        build([f"{out}/conse"])
        from modeling_ulip2.towers import load_tower
        assert load_tower(f"{out}/conse", device="cpu").encode_text(["a chair"]).shape == (1, 384)
    """,
    "onnx": """
        import shutil
        shutil.copytree(f"{world}/model", f"{out}/model")
        assert main(["export", f"{out}/model", "--format", "onnx"]) == 0
    """,
    "ray": """
        from modeling_ulip2.building.engines.ray import _import_ray
        assert _import_ray().data.from_items([{"id": 1}]).count() == 1
    """,
    "caption": """
        import peft, gguf
        given = ["--predictions", f"{world}/predictions.jsonl", "--dataset", f"{world}/dataset", "--views", "false"]
        given += ["--tokenizer", "regex", "--output_dir", f"{out}/report"]
        assert main(["evaluate", "captioning", *given]) == 0
    """,
    "benchmarks": """
        import h5py
        from pathlib import Path
        from modeling_ulip2.building.benchmarks.files import read_hdf5
        with h5py.File(f"{out}/clouds.h5", "w") as file:
            file["data"] = np.zeros((2, 8, 3), np.float32)
        assert read_hdf5(Path(f"{out}/clouds.h5"), ["data"])[0].shape == (2, 8, 3)
    """,
    "demo": """
        import faiss, gradio, pandas, trimesh
        from modeling_ulip2.search.index import ShapeIndex
    """,
    "trackers": """
        from torch.utils.tensorboard import SummaryWriter
        SummaryWriter(out).add_scalar("loss", 1.0, 0)
    """,
    "completion": """
        try:
            main(["--print-completion", "bash"])
        except SystemExit as ended:
            assert not ended.code
    """,
}
START = """
import sys
import numpy as np
from modeling_ulip2.cli import main
world, out = sys.argv[1:]
"""
# What is asked of an environment without the extra, and says what to install.
ASKED = {
    "mesh": "from modeling_ulip2.geometry.raster_numba import draw_view",
    "data": "from modeling_ulip2.data.reading import read_triplets",
    "search": "from modeling_ulip2.search.faiss_index import open_faiss; open_faiss('x')",
    "scenes": "from modeling_ulip2.scenes.scanning import scan_walk",
    "train": "from modeling_ulip2.training import Ulip2Trainer",
    "eval": "from modeling_ulip2.evaluation.reports.figures import confusion_matrix",
    "openclip": "from modeling_ulip2.towers.slip import slip_tokenizer; slip_tokenizer()",
    "offline": "from modeling_ulip2.towers.conse import main; main(['/tmp'])",
    "caption": "from modeling_ulip2.evaluation.captions.scores import caption_scores\n    "
    "caption_scores({'a': 'x', 'b': 'y'}, {'a': ['x'], 'b': ['y']}, tokenizer='regex')",
    "completion": "from modeling_ulip2.cli import main; main(['--traceback', '--print-completion', 'bash'])",
}
QUICK = ["", "mesh", "data", "search", "scenes", "train", "eval", "completion"]
# Stands for an environment without some packages: nobody finds them.
HIDDEN = """
import importlib.machinery
find_spec = importlib.machinery.PathFinder.find_spec
def without(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {names} else find_spec(name, path, target)
importlib.machinery.PathFinder.find_spec = classmethod(without)
"""


def test_every_extra_is_used_here() -> None:
    extras = re.search(r"\[project.optional-dependencies\]\n(.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.S)
    assert extras and set(re.findall(r"^(\w+) = \[", extras[1], re.M)) - {"all", "dev", "docs"} == set(USES) - {""}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    build_world(folder)
    write_box(folder / "meshes" / "box.obj")
    (folder / "clouds").mkdir()
    for name in "abc":
        cloud = np.random.default_rng(ord(name)).random((80, 6)).astype(np.float32)
        np.save(folder / "clouds" / f"{name}.npy", cloud)
    lines = [f'{{"id": "made/{i:02d}.obj", "prediction": "a red chair"}}' for i in range(12)]
    (folder / "predictions.jsonl").write_text("\n".join(lines))
    return folder


def run(python: Path | str, code: str, *arguments: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-c", code, *map(str, arguments)],
        cwd=arguments[-1] if arguments else None,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=500,
    )


def use_of(extra: str) -> str:
    return START + textwrap.dedent(USES[extra])


def brought_by(extra: str) -> set[str]:
    """The distributions that the package brings with an extra, all that those need included."""
    names: set[str] = set()
    waiting = [Requirement(f"modeling-ulip2[{extra}]" if extra else "modeling-ulip2")]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        if (key := str(requirement)) in seen:
            continue
        seen.add(key)
        names.add(canonicalize_name(requirement.name))
        try:
            needed = [Requirement(text) for text in requires(requirement.name) or []]
        except PackageNotFoundError:
            continue
        waiting += [
            own
            for own in needed
            if own.marker is None or any(own.marker.evaluate({"extra": e}) for e in {"", *requirement.extras})
        ]
    return names


def hidden_without(*extras: str) -> set[str]:
    """The modules of `EXTRAS` that an installation with these extras does not have."""
    brought, homes = set().union(*map(brought_by, extras)), packages_distributions()
    return {m for m in EXTRAS if not {canonicalize_name(name) for name in homes.get(m, ())} & brought}


@pytest.mark.parametrize("extra", [pytest.param(e, marks=[] if e in QUICK else pytest.mark.slow) for e in USES])
def test_an_extra_brings_what_it_needs(extra: str, world: Path, tmp_path: Path) -> None:
    code = HIDDEN.format(names=hidden_without(extra)) + use_of(extra)
    done = run(sys.executable, code, world, tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_is_missing_is_said_with_its_extra() -> None:
    tries = "\n".join(
        f"try:\n    {asked}\nexcept ImportError as error:\n    print({extra!r}, '|', error)"
        for extra, asked in ASKED.items()
    )
    done = run(sys.executable, HIDDEN.format(names=hidden_without("")) + tries, PYTHONPATH=str(ROOT))
    said = dict(line.split(" | ", 1) for line in done.stdout.splitlines() if " | " in line)
    assert set(said) == set(ASKED), done.stdout + done.stderr
    for extra, message in said.items():
        found = re.search(r'install it with: pip install "modeling-ulip2\[(\w+)\]"$', message)
        assert found and message.count("modeling-ulip2[") == 1, (extra, message)
        assert USES[found[1]], message


def test_what_the_readme_installs_is_enough_for_its_first_lines(tmp_path: Path) -> None:
    readme = ROOT / "README.md"
    (extras,) = set(re.findall(r"\[([a-z]+(?:,[a-z]+)+)\]", readme.read_text(encoding="utf-8")))
    lines, ran = [HIDDEN.format(names=hidden_without(*extras.split(","))), "from modeling_ulip2.cli import main"], 0
    for block in read_blocks(readme):
        if block.needs == "nothing" and block.language == "python":
            lines.append(block.code)
        elif block.needs == "nothing" and block.language == "bash":
            for program, *words in commands(block.code):
                assert program == "ulip2"
                lines.append(f"assert main({words}) == 0, {words}")
                ran += 1
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    done = run(sys.executable, "\n".join(lines), tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0 and ran >= 2, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_wheel_in_an_environment_of_its_own(world: Path, tmp_path: Path) -> None:
    """Every extra in an environment that sees the one of the core, so that torch is installed once."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    constraints = ["-c", str(ROOT / "constraints.txt")]
    # of a copy: what an earlier build left in `build/` would be packed, too
    skipped = shutil.ignore_patterns(".*", "build", "dist", "outputs", "*.egg-info", "__pycache__", "tests", "docs")
    shutil.copytree(ROOT, tmp_path / "source", ignore=skipped)
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(tmp_path / "source")], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    core = make_environment(tmp_path / "core")
    subprocess.run([core, "-m", "pip", "install", "--quiet", "--no-compile", *constraints, str(wheel)], check=True)
    site = subprocess.run(
        [core, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    lost = run(
        core, f"{START}\nsys.exit(main(['embed', f'{{world}}/clouds/a.npy', '-o', f'{{out}}/x']))", world, tmp_path
    )
    assert lost.returncode == 2 and "Only a clone of the repository has one" in lost.stderr, lost.stderr
    failed = {}
    for extra in USES:
        python = core
        if extra:
            python = make_environment(tmp_path / extra)
            sites = next((tmp_path / extra).glob("lib/python*/site-packages"))
            (sites / "core.pth").write_text(site)
            subprocess.run(
                [
                    python,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--no-compile",
                    *constraints,
                    f"modeling-ulip2[{extra}] @ file://{wheel}",
                ],
                check=True,
            )
            subprocess.run([python, str(ROOT / ".ci" / "repair_torchvision.py")], check=True)
        out = tmp_path / f"out_{extra}"
        out.mkdir()
        done = run(python, use_of(extra), world, out)
        print(extra or "core", "failed:\n" + done.stderr[-3000:] if done.returncode else "works", flush=True)
        if done.returncode:
            failed[extra or "core"] = done.stderr[-3000:]
    assert not failed, "\n".join(f"[{extra}]\n{said}" for extra, said in failed.items())


def make_environment(folder: Path) -> str:
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return str(folder / "bin" / "python")
