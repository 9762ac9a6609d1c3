"""What a capture costs beyond the forward pass that it cannot do without.

    python tests/benchmarks/capture.py [--model FOLDER] [--texts 192] [--peer PYTHON]

Everything is timed in turns in one process, files written included; only ratios mean anything
across machines. Without `--model` SmolLM2-135M is fetched as the real-model tests do it. `--peer`
is the Python of an environment with the published package (`python -m venv peer && peer/bin/pip
install mi-crow==1.0.0.post10`): it runs as a process of its own, since it shares our import name.
The table goes to the terminal, the numbers to `--out`.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mi_crow.datasets import TextDataset
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.plan import PartPlan
from mi_crow.language_model.capture.run import Capture
from mi_crow.language_model.capture.source import CaptureSource, Todo
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.progress import NullProgress
from mi_crow.ranks import ALONE
from mi_crow.store import RunManifest, Workspace
from tests.benchmarks.reader import reader_row
from tests.real_model.smollm2 import FORTUNES, model_folder


def real_documents(n: int) -> list[str]:
    """Fortunes and paragraphs of Python's own help, as they come: of any length, shuffled."""
    from pydoc_data.topics import topics

    found = [part for text in topics.values() for part in text.split("\n\n")]
    for file in sorted(FORTUNES.iterdir()) if FORTUNES.is_dir() else []:
        if not file.suffix and "art" not in file.name:
            found += file.read_text("utf-8", "replace").split("\n%\n")
    found = [text.strip() for text in found if text.strip()]
    random.Random(0).shuffle(found)
    return found[:n]


LAYER = "resid_post.15"
THREE = ("resid_post.5", "mlp_out.10", LAYER)
CONTEXT, BATCH = 128, 32


class Bench:
    """One model and the texts that every row captures."""

    # Several parts, as a run has that is worth its time: all but the last one's writing is hidden.
    shard_size = 64

    def __init__(self, model: Path, texts: Sequence[str], device: str, scratch: Path) -> None:
        self.lm = LanguageModel.from_huggingface(model, device=device)
        self.texts = list(texts)
        self.workspace = Workspace.open(scratch / "workspace")
        self._runs = 0

    def config(self, layers: Sequence[str], dtype: str = "bf16") -> CaptureConfig:
        return CaptureConfig(
            ModelSpec("bench"),
            DatasetSpec("bench"),
            tuple(layers),
            dtype=dtype,
            context_length=CONTEXT,
            batch_size=BATCH,
            shard_size=self.shard_size,
        )

    def capture(self, layers: Sequence[str], dtype: str = "bf16") -> tuple[float, Path]:
        """Seconds of a whole capture, and its folder."""
        work = Capture(self.lm, TextDataset(self.texts), self.config(layers, dtype))
        self._runs += 1
        folder = self.workspace.make_run_dir(f"run-{self._runs}", "")
        seconds = self.seconds(lambda: work.run(self.workspace, NullProgress(), folder))
        return seconds, folder

    def plans(self) -> list[PartPlan]:
        """The batches that a capture makes of the texts."""
        work = Capture(self.lm, TextDataset(self.texts), self.config([LAYER]))
        source = CaptureSource(self.lm, TextDataset(self.texts), self.config([LAYER]), work.layers)
        return list(source.plans(Todo({}, {}, None), ALONE))

    def bare(self, plans: Sequence[PartPlan]) -> float:
        """Seconds of the forward pass alone, stopped at the layer, on the same batches."""
        point = self.lm.layers.resolve(LAYER)

        def work() -> None:
            for plan in plans:
                for batch in plan.batches:
                    run_to(self.lm, [point], batch.input_ids.to(self.lm.device))

        return self.seconds(work)

    def seconds(self, work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        if self.lm.device.type == "cuda":
            torch.cuda.synchronize(self.lm.device)
        return time.perf_counter() - began


def speed_rows(bench: Bench, rounds: int) -> list[dict[str, Any]]:
    """Capture against the bare forward, and three layers against the deepest."""
    plans = bench.plans()
    tokens = sum(plan.tokens for plan in plans)
    work: dict[str, Callable[[], float]] = {
        "bare": lambda: bench.bare(plans),
        "one": lambda: bench.capture([LAYER])[0],
        "three": lambda: bench.capture(THREE)[0],
    }
    for one in work.values():
        one()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, one in work.items():
            times[name].append(one())
    of_bare = [bare / one for bare, one in zip(times["bare"], times["one"], strict=True)]
    of_one = [three / one for three, one in zip(times["three"], times["one"], strict=True)]
    medians = {name: statistics.median(values) for name, values in times.items()}
    return [
        row(
            "capture / bare forward, tokens/s",
            statistics.median(of_bare),
            ">= 0.95",
            rounds=of_bare,
        ),
        row(
            "three layers / the deepest alone, time",
            statistics.median(of_one),
            "<= 1.05",
            rounds=of_one,
        ),
        {"name": "seconds", "tokens": tokens, "medians": medians, "times": times},
    ]


def size_rows(bench: Bench) -> list[dict[str, Any]]:
    """Bytes a token on disk, against what the numbers alone take."""
    bench.shard_size = 512  # the default
    rows = []
    for dtype, itemsize, most in (
        ("fp32", 4, "<= 1.02"),
        ("bf16", 2, "<= 1.02"),
        ("int8", 1, "<= 1.03"),
    ):
        _, folder = bench.capture([LAYER], dtype)
        manifest = RunManifest.load(folder)
        layer = manifest.layers[0]
        size = sum(file.stat().st_size for file in (folder / layer.name).iterdir())
        beside = sum(file.stat().st_size for file in (folder / "tokens").iterdir())
        ratio = size / manifest.n_tokens / (layer.width * itemsize)
        rows.append(
            row(
                f"bytes a token / d x itemsize, {dtype}",
                ratio,
                most,
                token_files=beside / manifest.n_tokens,
                padding=manifest.padding_share,
                rounding_fvu=manifest.rounding_fvu,
            )
        )
    return rows


def peer_row(bench: Bench, python: Path, model: Path, scratch: Path, rounds: int) -> dict[str, Any]:
    """Ours against the published package on the same texts, A B A B."""
    bench.shard_size = 512  # the default
    texts = scratch / "texts.json"
    texts.write_text(json.dumps(bench.texts))
    layer = bench.lm.layers.resolve(LAYER).name
    script = Path(__file__).parent / "peers" / "published_capture.py"
    command = [python, script, model, texts, scratch / "peer", layer, CONTEXT, 16]
    ours, theirs = [], []
    with subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as peer:
        assert peer.stdin is not None
        assert peer.stdout is not None
        peer.stdout.readline()
        for _ in range(rounds):
            ours.append(bench.capture([LAYER])[0])
            peer.stdin.write("{}\n")
            peer.stdin.flush()
            theirs.append(json.loads(peer.stdout.readline())["seconds"])
        peer.stdin.close()
    ratios = [theirs[i] / ours[i] for i in range(rounds)]
    return row("published mi-crow / ours, time", statistics.median(ratios), ">= 2.2", rounds=ratios)


MEMORY_PROBE = r"""
import json, re, sys, tempfile
from mi_crow.language_model import LanguageModel
from mi_crow.language_model.capture.job import capture_run
from mi_crow.language_model.config import CaptureConfig, DatasetSpec, ModelSpec
from mi_crow.store import Workspace
with tempfile.TemporaryDirectory() as folder:
    spec = DatasetSpec(sys.argv[1], token_limit=int(sys.argv[2]))
    config = CaptureConfig(ModelSpec("sample", device="cpu"), spec, ("resid_post.2",))
    result = capture_run(Workspace.open(folder), config)
# Not ru_maxrss, which a child inherits from the process that forked it.
peak = int(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
print(json.dumps({"tokens": result.tokens, "kilobytes": peak}))
"""


def memory_row(scratch: Path) -> dict[str, Any]:
    """Peak memory of a capture with the sample model, 50k and 500k tokens of one long file."""
    from mi_crow.datasets import load_texts

    texts = [text for text, _ in load_texts(DatasetSpec("sample")).rows()]
    source = scratch / "many.jsonl"
    lines = [json.dumps({"text": f"{copy} {text}"}) for copy in range(2) for text in texts]
    source.write_text("\n".join(lines) + "\n")
    peaks = {}
    for tokens in (50_000, 500_000):
        command = [sys.executable, "-c", MEMORY_PROBE, str(source), str(tokens)]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        answer = json.loads(found.stdout.splitlines()[-1])
        peaks[answer["tokens"]] = answer["kilobytes"]
    least, most = peaks.values()
    return row("peak memory, 500k / 50k tokens", most / least, "<= 1.10", kilobytes=peaks)


def row(name: str, ratio: float, wanted: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "ratio": ratio, "wanted": wanted, **more}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", type=Path, help="Python with the published mi-crow")
    parser.add_argument("--peer-rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=("speed", "size", "peer", "memory", "reader"))
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/capture.json"))
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    wanted = {options.only} if options.only else {"speed", "size", "peer", "memory", "reader"}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = options.model or model_folder()
        bench = Bench(model, real_documents(options.texts), options.device, scratch)
        if "speed" in wanted:
            rows += speed_rows(bench, options.rounds)
        if "size" in wanted:
            rows += size_rows(bench)
        if "peer" in wanted and options.peer is not None:
            rows.append(peer_row(bench, options.peer, model, scratch, options.peer_rounds))
        if "memory" in wanted:
            rows.append(memory_row(scratch))
        if "reader" in wanted:
            _, run = bench.capture([LAYER])
            rows.append(reader_row(run, LAYER, options.device))
    for one in rows:
        if "ratio" in one:
            print(f"{one['name']:44} {one['ratio']:8.3f}  wanted {one['wanted']}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"device": options.device, "threads": torch.get_num_threads(), "rows": rows}
    options.out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
