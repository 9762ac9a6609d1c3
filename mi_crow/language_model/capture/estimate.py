"""How large a capture will be and how long it will take, before anything is written."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

from mi_crow.errors import UserError
from mi_crow.language_model.base import CausalModel
from mi_crow.language_model.capture.source import CaptureSource
from mi_crow.language_model.capture_pass import run_to
from mi_crow.language_model.config import CaptureConfig
from mi_crow.language_model.hook_points.point import HookPoint
from mi_crow.store.runs.manifest import LayerSpec, run_bytes

_SAMPLE_DOCUMENTS = 256
_PROBE_DOCUMENTS = 4
# A capture of fewer tokens is finished before its time could be measured.
_WORTH_TIMING = 20_000
_SPARE_BYTES = 64 << 20
# What needs less of the disk.
LESS = (
    "use --dtype int8, fewer layers or --token-limit, or train without a run on the disk: mi-crow "
    "train --stream"
)


@dataclass(frozen=True)
class Estimate:
    """The expected size and time of a capture."""

    tokens: int
    bytes: int
    seconds: float | None  # None: too small to be worth timing

    def sentence(self) -> str:
        time = "" if self.seconds is None else f" and {_duration(self.seconds)}"
        return f"about {self.tokens:,} tokens: {_size(self.bytes)}{time}"


def estimate(
    lm: CausalModel,
    points: Sequence[HookPoint],
    layers: Sequence[LayerSpec],
    source: CaptureSource,
    config: CaptureConfig,
) -> Estimate:
    """Tokens and bytes from a sample of the documents, time from a trial batch; none where several
    processes have to run every batch together."""
    texts, kept, documents = source.sample(_SAMPLE_DOCUMENTS)
    mean = sum(kept) / max(len(kept), 1)
    limit = config.dataset.token_limit
    in_all = mean * documents if documents else None
    tokens = int(min(x for x in (limit, in_all) if x is not None))
    seconds = None
    if tokens >= _WORTH_TIMING and not config.tensor_parallel:
        passages = [text.text for text in texts[:_PROBE_DOCUMENTS]]
        rate = _tokens_per_second(lm, points, passages, config.context_length)
        seconds = tokens / rate
    needed = run_bytes(config.dtype, [layer.width for layer in layers], tokens)
    return Estimate(tokens, needed, seconds)


def check_room(expected: Estimate, folder: Path, less: str = LESS) -> None:
    """Raises UserError when the run does not fit on the disk of `folder`; `less` says what would
    need less."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if expected.bytes + _SPARE_BYTES > free:
        raise UserError(
            f"the run needs about {_size(expected.bytes)} and {_size(_SPARE_BYTES)} to spare, but "
            f"the disk has {_size(free)} free",
            hint=less,
        )


def _tokens_per_second(
    lm: CausalModel, points: Sequence[HookPoint], texts: list[str], context: int
) -> float:
    """Real tokens per second in a forward pass of a small batch."""
    encoding = lm.encode(texts, min(context, lm.context or context))
    run_to(lm, points, encoding.input_ids[:1])  # the first pass is slower than all others
    _wait_for(lm.device)
    started = perf_counter()
    run_to(lm, points, encoding.input_ids)
    _wait_for(lm.device)
    return int(encoding.attention_mask.sum()) / max(perf_counter() - started, 1e-9)


def _wait_for(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{max(1, round(seconds))} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
