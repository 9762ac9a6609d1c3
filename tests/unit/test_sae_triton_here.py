"""What can be said of the Triton kernels without a GPU: the interpreter's sums, and that they
compile for GPUs that are not here."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton comes with the CUDA builds of PyTorch"
)

CASES = Path(__file__).with_name("test_sae_triton.py")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU itself")
def test_the_kernels_hold_under_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"\d\d passed", done.stdout)
    assert "skipped" not in done.stdout


COMPILE = """
import sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton.language as tl
from mi_crow.mechanistic.sae.kernels import triton_kernels as kernels

def compiled(kernel, types, constants):
    given = iter(types)
    signature = {
        name: "constexpr" if name in constants else next(given) for name in kernel.arg_names
    }
    for capability in (75, 80, 90, 120):
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        target = GPUTarget("cuda", capability, 32)
        assert triton.compile(source, target=target, options=kernels._OPTIONS).asm["cubin"]

def all_compiled(rows, ends, sizes):
    bags = ["*i64", "*fp32", "*i64", rows]
    for piece in (0, 256):
        compiled(
            kernels._bag_sums, [*bags, "*fp32", "*i64", rows, *ends], {"piece": piece, **sizes}
        )
    compiled(kernels._piece_sums, [*bags, "*i64", "*i64", "*fp32", *ends], {"piece": 256, **sizes})
    compiled(kernels._bag_products, [rows, "*i64", "*i64", rows, rows, *ends], sizes)

for rows in ("*fp32", "*bf16"):
    all_compiled(rows, ["i32", "i32", "i32"], {"block": 1024, "acc": tl.float32})
# More entries than 32 bits count; a width of 1, of which Triton makes a constant.
all_compiled("*fp32", ["i32", "i64", "i32"], {"block": 1024, "acc": tl.float32})
all_compiled("*fp32", ["i32", "i32"], {"width": 1, "block": 16, "acc": tl.float32})
"""


@pytest.mark.slow
def test_the_kernels_compile_for_gpus_that_are_not_here() -> None:
    surroundings = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=240,
    )
    if "ptxas" in done.stderr and "not found" in done.stderr.lower():
        pytest.skip("this build of Triton brings no assembler")
    assert done.returncode == 0, done.stderr[-3000:]
