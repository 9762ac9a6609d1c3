"""What a training will take, before it starts: steps, memory, disk and operations, all counted, and
the time by what was measured in the workspace. Torch-free."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from mi_crow.datasets.splits import TRAINED_SHARE
from mi_crow.language_model.hook_points.names import number_of, short_name
from mi_crow.language_model.outline import Outline
from mi_crow.mechanistic.sae.config import CLT, NONE, SAE, TrainConfig
from mi_crow.mechanistic.sae.evaluation.config import EvaluateConfig
from mi_crow.mechanistic.sae.evaluation.standing import training_of
from mi_crow.mechanistic.sae.stored_layers import stored_layer
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import SaeSummary

_FLOAT, _DOUBLE = 4, 8  # bytes
_COPIES = 4  # of a parameter while training: itself, its gradient, two moments of Adam
_KEPT = 3 * 2  # in checkpoints: itself and the moments; the one before goes when the next is whole
# As in train/whitening.py: tokens of the covariance, and d x d matrices at its decomposition.
_WHITENING_TOKENS, _A_DIMENSION, _MATRICES = 131_072, 32, 6
# Elements of one pass's logits, as in finetune/kl.py, and tensors of that size at the peak: counted
# by what the sample model took (0.8 of it).
_LOGITS, _LOGIT_TENSORS = 1 << 24, 10
_DOCUMENTS = 8  # evaluated side by side before and after a finetune
_SAVED = 17  # widths of a block's activations that the backward pass needs, for each token
# Passes of the model for a token of a finetune: plain, with the SAE, and back through that.
_PASSES = 4


@dataclass(frozen=True)
class TrainingCost:
    """Bytes and floating-point operations; memory is what there is beside torch itself."""

    steps: int
    batch_size: int
    tokens: int  # trained on; the same token counts each time
    epochs: float | None  # None: it is not known how many tokens there are
    latents: tuple[int, ...]  # of each SAE
    work: float  # multiplications of the encoders over all tokens
    memory: int  # of all together
    model_memory: int  # of it for the model, its logits and what its backward pass needs
    whitening_memory: int  # of it for the covariance and its decomposition
    disk: int  # of the finished SAEs
    checkpoints: int  # at most, while the training goes on
    operations: dict[str, float]  # by part of the work

    def seconds(self, tflops: float) -> dict[str, float]:
        """By part, on a device that does this many 10^12 operations a second: at least."""
        return {part: done / (tflops * 1e12) for part, done in self.operations.items()}

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def width_read(config: TrainConfig, run: RunManifest | None, outline: Outline | None) -> int | None:
    """The width of the layer that is trained on, where it is known. Raises NotFoundError for one
    that the run lacks."""
    if run is not None:
        return stored_layer(run, config.layer).width
    return dict(outline.points()).get(config.layer) if outline is not None else None


def steps_of(config: TrainConfig, run: RunManifest | None) -> int:
    """As given, else by epochs or tokens; 0 where they are of a run that is not there yet."""
    training = config.training
    if training.steps is not None:
        return training.steps
    available = run.n_tokens * TRAINED_SHARE if run is not None else 0
    return math.ceil((training.tokens or (training.epochs or 1) * available) / training.batch_size)


def training_cost(
    config: TrainConfig,
    width: int,
    run: RunManifest | None,
    outline: Outline | None,
    start: SaeSummary | None = None,
) -> TrainingCost:
    """The cost of a training on activations of this width. `outline` is the model's, which a stream
    and a finetune run; `start` is the SAE that `config.init` names."""
    steps, batch = steps_of(config, run), config.training.batch_size
    tokens = steps * batch
    latents = tuple(
        start.n_latents if start is not None else one.n_latents or int(one.expansion * width)
        for one in config.variants()
    )
    each = len(config.layers) if config.family == SAE and config.layers else 1
    read, written = _matrices(config)
    work = float(each * sum(tokens * width * number * read for number in latents))
    numbers = sum((read + written) * width * number + number + width for number in latents)
    rows = batch / config.training.accumulate * (max(latents) + 2 * width * read)
    operations = {"encoding": 2 * work}
    if (of_model := _model_operations(config, outline, run, tokens)) > 0:
        operations["the model"] = of_model
    whitening = 0
    if config.training.whiten:
        sample = max(_WHITENING_TOKENS, _A_DIMENSION * width)
        whitening = _MATRICES * _DOUBLE * width**2
        folding = 2.0 * max(latents) * width**2 * (read + written)
        operations["whitening"] = 2.0 * sample * width**2 + 9.0 * width**3 + folding
    model = _model_memory(config, outline, run)
    available = run.n_tokens * TRAINED_SHARE if run is not None else 0
    return TrainingCost(
        steps=steps,
        batch_size=batch,
        tokens=tokens,
        epochs=tokens / available if available else None,
        latents=latents,
        work=work,
        memory=round(numbers * _FLOAT * _COPIES + rows * _FLOAT) + model + whitening,
        model_memory=model,
        whitening_memory=whitening,
        disk=each * numbers * _FLOAT,
        checkpoints=numbers * _FLOAT * _KEPT + (whitening if whitening else 0),
        operations=operations,
    )


def _matrices(config: TrainConfig) -> tuple[int, int]:
    """How many matrices [latents, width] encode, and how many decode."""
    if config.family == SAE:
        return 1, 1
    layers = len(config.layers) * config.n_models
    return layers, layers * (layers + 1) // 2 if config.family == CLT else layers


def _model_operations(
    config: TrainConfig, outline: Outline | None, run: RunManifest | None, tokens: int
) -> float:
    """Those of a stream, whose model stops after the layer, and of a finetune, which measures the
    cross-entropy of held-out documents before and after besides."""
    if outline is None:
        return 0.0
    parameters = _parameters(outline)
    if config.finetune != NONE:
        measured = 2 * 2 * EvaluateConfig("").documents * _context(run)
        return 2.0 * parameters * (_PASSES * tokens + measured)
    if config.stream is None:
        return 0.0
    return 2.0 * parameters * tokens * config.n_models * _share_run(config, outline)


def _share_run(config: TrainConfig, outline: Outline) -> float:
    """The share of the blocks up to the deepest layer that is read."""
    numbers = [number_of(short_name(layer)) for layer in config.layers or (config.layer,)]
    deepest = max((number for number in numbers if number is not None), default=outline.blocks - 1)
    return min(1.0, (deepest + 1) / outline.blocks)


def _model_memory(config: TrainConfig, outline: Outline | None, run: RunManifest | None) -> int:
    if outline is None or (config.finetune == NONE and config.stream is None):
        return 0
    if config.finetune == NONE:
        return outline.file_bytes * config.n_models
    vocabulary = max(
        (shape[0] for name, shape in outline.tensors.items() if "embed" in name), default=0
    )
    context = _context(run)
    of_step = max(context, _LOGITS // vocabulary if vocabulary else context)
    # Before and after the steps, documents are evaluated side by side.
    positions = max(min(of_step, config.training.batch_size), _DOCUMENTS * context)
    logits = _LOGIT_TENSORS * positions * vocabulary
    saved = _SAVED * positions * outline.width * outline.blocks
    return outline.file_bytes + _FLOAT * (logits + saved)


def _parameters(outline: Outline) -> float:
    counted = sum(math.prod(shape) for shape in outline.tensors.values() if shape)
    return float(counted or outline.file_bytes / 2)


def _context(run: RunManifest | None) -> int:
    """Tokens of a document, at most."""
    found = run.settings.get("context_length") if run is not None else None
    return found if isinstance(found, int) else 1024


# How long it takes.


@dataclass(frozen=True)
class ExpectedTime:
    """Seconds by the speed of earlier work here."""

    seconds: float
    why: str  # what was measured
    at_least: bool = False


def expected_time(
    config: TrainConfig, cost: TrainingCost, saes: Iterable[SaeSummary], run: RunManifest | None
) -> ExpectedTime | None:
    """By earlier trainings whose SAEs are still here: of this architecture where there are any, and
    for a finetune only by finetunes in this model; without those by how fast its run was captured.
    None where nothing was measured."""
    finetunes = config.finetune != NONE
    speeds: list[tuple[bool, float]] = []
    for sae in saes:
        told = training_of(sae)
        result, before = told.get("result"), told.get("config")
        if not isinstance(result, dict) or not isinstance(before, dict):
            continue
        if before.get("sweep_k") or before.get("sweep_expansion"):
            continue
        if (before.get("finetune") or NONE) != config.finetune or (
            finetunes and (run is None or sae.model_id != run.model_id)
        ):
            continue
        tokens, seconds = _positive(result, "tokens"), _positive(result, "seconds")
        if tokens and seconds:
            amount = tokens if finetunes else tokens * sae.n_inputs * sae.n_latents
            speeds.append((finetunes or before.get("arch") == config.arch, amount / seconds))
    chosen = [speed for same, speed in speeds if same] or [speed for _, speed in speeds]
    if chosen:
        work = cost.tokens if finetunes else cost.work
        what = "finetune" if finetunes else "training"
        several = f"{len(chosen)} {what}{'' if len(chosen) == 1 else 's'}"
        return ExpectedTime(work / median(chosen), f"as measured on {several}")
    if finetunes and run is not None and run.seconds and run.n_tokens:
        seconds = _PASSES * cost.tokens * run.seconds / run.n_tokens
        why = f"{_PASSES} passes through the model, as fast as run {run.run_id} was captured"
        return ExpectedTime(seconds, why, at_least=True)
    return None


def _positive(values: dict[str, Any], name: str) -> float | None:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return None
    return float(value)
