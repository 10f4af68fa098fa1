"""A large file is mapped: what is left out of it never enters memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from tests.conversion import published

CONVERT = """
import json, resource, sys
from modeling_ulip2.conversion.folder import convert_to_folder

def peak():  # MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

convert_to_folder(sys.argv[1], sys.argv[3], json.loads(sys.argv[4]))  # imports and caches
before = peak()
convert_to_folder(sys.argv[2], sys.argv[5], json.loads(sys.argv[4]))
print(peak() - before)
"""
TOWER_MB = 400


def test_a_large_tower_is_never_loaded(tmp_path: Path) -> None:
    file = published.ulip()
    small = file.save(tmp_path / "small.pt")
    values = torch.ones(TOWER_MB * 1_000_000 // 4)
    file.content["state_dict"]["module.open_clip_model.visual.weight"] = values
    large = file.save(tmp_path / "large.pt")
    arguments = [small, large, tmp_path / "a", json.dumps(file.point_config), tmp_path / "b"]
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    grown = float(done.stdout.splitlines()[-1])
    assert grown < TOWER_MB / 8, f"converting took {grown:.0f} MB more than a file without tower"
