"""How large and how long a capture will be, before anything of it is written."""

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
from mi_crow.store.runs.manifest import LayerSpec, stored_bytes

_SAMPLE_DOCUMENTS = 256
_PROBE_DOCUMENTS = 4
# A capture of fewer tokens is over before its time would be known.
_WORTH_A_PROBE = 20_000
# What a token costs beside its activations: its id, its place and the text, compressed.
_TOKEN_FILE_BYTES = 6
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True)
class Estimate:
    """What a capture is expected to take."""

    tokens: int
    bytes: int
    seconds: float | None  # None: too little to be worth a trial

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
    """Tokens and bytes from a sample of the documents, time from a trial of the model."""
    texts, kept, documents = source.sample(_SAMPLE_DOCUMENTS)
    mean = sum(kept) / max(len(kept), 1)
    limit = config.dataset.token_limit
    everything = mean * documents if documents else None
    tokens = int(min(x for x in (limit, everything) if x is not None))
    width = sum(stored_bytes(config.dtype, layer.width) for layer in layers)
    seconds = None
    if tokens >= _WORTH_A_PROBE:
        passages = [text.text for text in texts[:_PROBE_DOCUMENTS]]
        rate = _tokens_a_second(lm, points, passages, config.context_length)
        seconds = tokens / rate
    return Estimate(tokens, tokens * (width + _TOKEN_FILE_BYTES), seconds)


def check_room(expected: Estimate, folder: Path) -> None:
    """Raises UserError when the disk of `folder` cannot hold the run."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if expected.bytes + _SPARE_BYTES > free:
        raise UserError(
            f"the run needs about {_size(expected.bytes)} and {_size(_SPARE_BYTES)} to spare, the "
            f"disk has {_size(free)} free",
            hint="use --dtype int8, fewer layers, --token-limit, or no disk at all: "
            "mi-crow train --stream",
        )


def _tokens_a_second(
    lm: CausalModel, points: Sequence[HookPoint], texts: list[str], context: int
) -> float:
    """Real tokens a second of the forward pass, of a small batch."""
    encoding = lm.encode(texts, min(context, lm.context or context))
    run_to(lm, points, encoding.input_ids[:1])  # the first pass is slower than all others
    begun = perf_counter()
    run_to(lm, points, encoding.input_ids)
    if lm.device.type == "cuda":
        torch.cuda.synchronize(lm.device)
    return int(encoding.attention_mask.sum()) / max(perf_counter() - begun, 1e-9)


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
