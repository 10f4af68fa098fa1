"""Let torchvision's CUDA-linked wheel import beside a CPU-only torch.

torchvision's wheels on the default package index are linked against CUDA. Beside a CPU build of torch their extension
does not load, the operators ``torchvision::nms`` and ``torchvision::qnms`` are therefore unknown, and
``import torchvision`` fails, which takes open_clip, timm and large parts of transformers with it. None of our code
calls these operators; it is enough that their *schemas* exist before ``torchvision._meta_registrations`` runs.

This script writes an import hook and a ``.pth`` file into the site-packages of the interpreter that runs it, so that
worker processes and launchers see it too. It does nothing where torchvision is absent or already imports (matching
wheels, GPU machines), and running it twice changes nothing. To undo it, delete the two files that it names.

    python .ci/repair_torchvision.py
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

HOOK_NAME = "_torchvision_cpu_schemas"

# A finder rather than a plain import: torch must not be loaded by every interpreter that starts.
HOOK_SOURCE = '''"""Defines the operators that torchvision expects before it asks for them."""

import sys


class _DefineSchemas:
    library = None  # the definitions live as long as this object

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "torchvision._meta_registrations" and cls.library is None:
            import torch

            cls.library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                if not hasattr(torch.ops.torchvision, operator):
                    cls.library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None  # the ordinary finders load the module


sys.meta_path.insert(0, _DefineSchemas)
'''


def torchvision_imports() -> bool:
    """Whether a fresh interpreter can import torchvision."""
    return subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode == 0


def main() -> int:
    if find_spec("torchvision") is None or torchvision_imports():
        return 0
    site_packages = Path(sysconfig.get_path("purelib"))
    hook, pth = site_packages / f"{HOOK_NAME}.py", site_packages / f"{HOOK_NAME}.pth"
    hook.write_text(HOOK_SOURCE)
    pth.write_text(f"import {HOOK_NAME}\n")
    if torchvision_imports():
        print(f"torchvision imports now, through {hook} and {pth.name}")
        return 0
    hook.unlink()
    pth.unlink()
    print("torchvision does not import, and not for want of its operator schemas: reinstall it", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
