"""Compiles the Triton kernels, as they are launched, for GPUs that this machine need not have.

    python -m tests.models.compile_kernels cuda:80 cuda:90 hip:gfx942

Prints a JSON line for each kernel and target: its launch, bytes of registers spilled to memory, and how many steps the
assembler fused into one (FFMA), which would round otherwise.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from modeling_ulip2.models import point_ops_triton as kernels

NAMES = ("_sample_in_registers", "_sample_in_memory", "_nearest_kernel", "_ball_kernel")
POINTERS = {torch.float32: "*fp32", torch.int64: "*i64"}


class Launch:
    """Stands in the place of a kernel and compiles what would be launched."""

    def __init__(self, name: str, targets: list[str]):
        self.name, self.targets, self.kernel = name, targets, getattr(kernels, name)

    def __getitem__(self, grid: Any) -> Any:
        return self.compile

    def compile(self, *arguments: Any, num_warps: int, enable_fp_fusion: bool, **constants: Any) -> None:
        values = dict(zip(self.kernel.arg_names, arguments, strict=False)) | constants
        signature: dict[str, str] = {}
        fixed: dict[tuple[int, ...], Any] = {}
        attributes: dict[tuple[int, ...], Any] = {}
        for place, (name, value) in enumerate(values.items()):
            # as Triton does at a launch: a 1 becomes part of the kernel, and so does that 16 divides a number
            if name in constants or (isinstance(value, int) and value == 1):
                signature[name], fixed[(place,)] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                signature[name] = POINTERS[value.dtype]
            else:
                signature[name] = "i32" if isinstance(value, int) else "fp32"
            if isinstance(value, torch.Tensor) or (signature[name] == "i32" and value % 16 == 0):
                attributes[(place,)] = [["tt.divisibility", 16]]
        for target in self.targets:
            backend, _, arch = target.partition(":")
            place = GPUTarget(backend, int(arch) if backend == "cuda" else arch, 32 if backend == "cuda" else 64)
            options = {"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion}
            source = ASTSource(self.kernel, signature, constexprs=fixed, attrs=attributes)
            compiled = triton.compile(source, target=place, options=options)
            told = {"kernel": self.name, "target": target, "constants": constants, **options}
            if backend == "cuda":
                told |= assembled(compiled)
            else:
                told["fused"] = len(re.findall(r"v_(?:pk_)?fma", compiled.asm["amdgcn"]))
            print(json.dumps(told), flush=True)


def assembled(compiled: Any) -> dict[str, int]:
    """What the machine code of a kernel holds."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()

        def told(tool: str, *options: str) -> str:
            run = subprocess.run([tools / tool, *options, file.name], capture_output=True, text=True, check=True)
            return run.stdout

        usage, code = told("cuobjdump", "-res-usage"), told("nvdisasm", "-c")
    stack = re.search(r"STACK:(\d+)", usage)
    registers = re.search(r"REG:(\d+)", usage)
    assert stack and registers, usage
    return {
        "registers": int(registers[1]),
        "spilled": int(stack[1]),
        "fused": len(re.findall(r"\bFFMA", code)),
        "instructions": len(re.findall(r"^\s+/\*[0-9a-f]+\*/", code, flags=re.MULTILINE)),
    }


def main(targets: list[str]) -> None:
    for name in NAMES:
        setattr(kernels, name, Launch(name, targets))
    for points in (1, 1000, 4096, 10_000, 10_001, 16_384, 20_000):
        xyz, first = torch.zeros(2, 3, points), torch.zeros(2, dtype=torch.int64)
        kernels.farthest_positions(xyz, first, 1e-3, 512)
    xyz, query = torch.zeros(2, 3, 10_000), torch.zeros(2, 3, 512)
    for k, channels in ((1, 3), (32, 6), (64, 6)):
        kernels.nearest_rows(query, xyz, k, torch.zeros(2, 10_000, channels))
    kernels.nearest(query[..., :1], xyz, 32)
    for include_boundary in (False, True):
        kernels.inside_ball(query, xyz, 0.04, 64, include_boundary)


if __name__ == "__main__":
    main(sys.argv[1:])
