"""The steps of `run.sh`: each a process of its own, and what all of them found.

tests/gpu/run.sh [--tiny] [--only STEP ..] [--out build/gpu]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

BUDGET_S = 470.0
TINY_BUDGET_S = 900.0  # of a machine that does other work beside it
GPU_TESTS = (  # those with the mark `gpu`
    "tests/unit/test_sae_triton.py",
    "tests/unit/test_sae_kernels.py",
    "tests/unit/test_sae_source.py",
    "tests/unit/test_sae_training_device.py",
    "tests/unit/test_features_device.py",
    "tests/unit/test_features_job.py",
    "tests/unit/test_language_model_loading.py",
    "tests/unit/test_model_placement.py",
    "tests/unit/test_steering_steer.py",
    "tests/unit/test_decoding_static.py",
    "tests/unit/test_cuda_graph.py",
    "tests/unit/test_device_memory.py",
)


@dataclass(frozen=True)
class Step:
    """A command; its rows are in the file that it is given with --out, where it takes one."""

    name: str
    command: tuple[str, ...]
    rows: bool = False
    limits: tuple[tuple[str, float], ...] = ()  # of figures that it prints with --json


@dataclass(frozen=True)
class Done:
    """How a step ended."""

    name: str
    status: str  # ok, failed, or timeout
    seconds: float
    rows: list[dict[str, Any]]
    ending: str = ""  # of its output, where it failed


def steps(device: str, tiny: bool, workspace: Path) -> Iterator[Step]:
    """All of them, what counts most first."""

    def pick(real: str, small: str) -> tuple[str, ...]:
        return tuple((small if tiny else real).split())

    def script(name: str, real: str, small: str, folder: str = "benchmarks") -> tuple[str, ...]:
        return (sys.executable, f"tests/{folder}/{name}.py", "--device", device, *pick(real, small))

    def command(*words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "mi_crow", *words, "--workspace", str(workspace))

    tested = GPU_TESTS[1:2] if tiny else (*GPU_TESTS, "-m", "gpu")
    yield Step("tests", (sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", *tested))
    real = "--random --width 2304 --k 64 --tokens 4096 --rounds 3"
    small = "--random --width 32 --k 4 --tokens 64 --rounds 1 --latents 1024 --only floor dead"
    wide = "--latents 36864 --only floor dead cuda"
    yield Step("train", script("train", f"{real} {wide}", small), True)
    if not tiny:
        widest = f"{real} --latents 131072 --only floor"
        yield Step("train 131072", script("train", widest, small), True)
    sizes = "--width 2304 --latents 36864 --k 64 --tokens 4096 --steps 20"
    small = "--width 32 --latents 256 --k 4 --tokens 64 --steps 4"
    yield Step("profile", script("profile_training", sizes, small, "gpu"), True)
    run = pick("--limit 4000", "--limit 24")
    layer, name = ("--layer", "resid_post.2"), ("--name", "gpu")
    on = ("--device", device)
    yield Step("capture a run", command("capture", *on, *layer, *name, *run))
    trained = pick("--steps 400", "--steps 4 --batch-size 64 --n-latents 64 --k 4")
    yield Step("train on it", command("train", *on, "--run", "gpu", *name, *trained))
    yield Step("index it", command("index", *on, "--sae", "gpu"))
    judged = (("other_sets", 0.001),)
    yield Step("evaluate it", command("--json", "evaluate", *on, "--sae", "gpu"), limits=judged)
    sweep = script("steer", "--speed", "--speed --rounds 1 --n 2 --tokens 4")
    yield Step("sweep", (*sweep[:2], str(workspace), *sweep[2:]), True)
    small = "--dtype fp32 --width 64 --layers 2 --vocabulary 320 --rows 2 --tokens 10 --rounds 1"
    yield Step("decode", script("decode", "--rows 2 128 --rounds 2", small), True)
    if not tiny:
        yield Step("index wide", script("index_wide", "--tokens 200000 --rounds 5", ""), True)
        yield Step("sparsify", script("train", "--random --only peers --rounds 3", ""), True)


def run(step: Step, out: Path, seconds: float) -> Done:
    """Runs a step for at most so many seconds."""
    found = out / f"{step.name.replace(' ', '-')}.json"
    found.unlink(missing_ok=True)
    command = [*step.command, *(("--out", str(found)) if step.rows else ())]
    began, status, text = time.perf_counter(), "ok", ""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=max(seconds, 1.0),
            text=True,
        )
        status, text = "ok" if done.returncode == 0 else "failed", done.stdout
    except subprocess.TimeoutExpired:
        status = "timeout"
    rows = json.loads(found.read_text()).get("rows", []) if found.is_file() else []
    if step.limits and status == "ok":
        rows = list(judged(step, json.loads(text.splitlines()[-1])))
    ending = "" if status == "ok" else "\n".join(text.splitlines()[-15:])
    return Done(step.name, status, time.perf_counter() - began, rows, ending)


def judged(step: Step, printed: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each figure that the step's object has, beside the most that it may be."""
    for name, most in step.limits:
        if (value := printed.get(name)) is not None:
            yield {
                "name": f"{step.name}: {name}",
                "value": value,
                "wanted": f"<= {most:g}",
                "met": value <= most,
            }


def report(done: list[Done], facts: dict[str, Any], out: Path) -> None:
    """The JSON file, whole at any moment, and the table beside it."""
    whole = {**facts, "steps": [asdict(one) for one in done]}
    scratch = out / "result.tmp"
    scratch.write_text(json.dumps(whole, indent=2) + "\n")
    scratch.replace(out / "result.json")
    (out / "table.txt").write_text("\n".join(table(done, facts["tiny"])) + "\n")


def table(done: list[Done], tiny: bool) -> Iterator[str]:
    """A line for each step and each of its rows; at tiny sizes a limit says nothing."""
    for one in done:
        yield f"{one.name:16} {one.status:8} {one.seconds:7.1f} s"
        verdicts: dict[bool | None, str] = {None: "", True: "met", False: "MISSED"}
        for row in one.rows:
            judged = bool(row["wanted"]) and not tiny
            wanted = f"wanted {row['wanted']}" if judged else ""
            line = f"    {row['name']:62} {row['value']:10.4f}  {wanted:15} "
            line += verdicts[row["met"]] if judged else ""
            yield line.rstrip()
        if one.ending:
            yield one.ending


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it runs")
    parser.add_argument("--only", nargs="+", help="these steps")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    tiny = options.tiny or not gpu
    device = "cuda" if gpu else "cpu"
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {
        "device": torch.cuda.get_device_name() if gpu else "cpu",
        "torch": torch.__version__,
        "tiny": tiny,
    }
    ends = time.monotonic() + (TINY_BUDGET_S if tiny else BUDGET_S)
    done: list[Done] = []
    with tempfile.TemporaryDirectory() as scratch:
        for step in steps(device, tiny, Path(scratch) / "workspace"):
            if options.only and step.name not in options.only:
                continue
            done.append(run(step, options.out.absolute(), ends - time.monotonic()))
            report(done, facts, options.out)
            print("\n".join(table(done[-1:], tiny)), flush=True)
    print(f"written to {options.out / 'result.json'}")
    return 0 if all(one.status == "ok" for one in done) else 1


if __name__ == "__main__":
    raise SystemExit(main())
