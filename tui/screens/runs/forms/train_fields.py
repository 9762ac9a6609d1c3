"""The fields of the form of a training, by their sections."""

from dataclasses import replace

from mi_crow.bounds import AMOUNT, COUNT, EXPANSION, FACTOR, LATENTS, NOT_NEGATIVE, SIZE, Bounds
from mi_crow.mechanistic.sae.config import ARCHITECTURES, LOGGERS, PRECISIONS, SHARES
from tui.screens.runs.forms.capture import dataset_field, model_field
from tui.screens.runs.forms.shared import (
    NO,
    USUAL,
    context_field,
    device_field,
    job_fields,
    limit_field,
    model_fields,
    name_field,
    seed_field,
    text_fields,
)
from tui.widgets.forms.fields import Default, FormField

_SHAPE, _RECIPE, _LOGS = "Size and sparsity", "Length and recipe", "Checkpoints and logs"
_STREAM = "Without a run: a model reads texts"


def train_fields(device: str) -> tuple[FormField, ...]:
    """All of them, the few that everybody needs first."""
    return (
        FormField("run_id", "run", hint="the activations to train on", required=True, flag="--run"),
        FormField(
            "layer",
            "layer",
            hint="of the run; with commas between several, a training for each",
            required=True,
            several=True,
            flag="--layer",
        ),
        FormField(
            "arch",
            "architecture",
            hint="how the latents that fire are chosen",
            choices=ARCHITECTURES,
            closed=True,
            default=Default("topk", USUAL),
            flag="--arch",
        ),
        FormField(
            "expansion",
            "expansion",
            hint="latents per input of the layer; several train an SAE each, side by side",
            bounds=EXPANSION,
            several=True,
            default=Default("8", USUAL),
            flag="--expansion",
        ),
        FormField(
            "k",
            "k",
            hint="latents that fire on a token, exactly or as the target; several: an SAE each",
            bounds=LATENTS,
            several=True,
            default=Default("32", USUAL),
            flag="--k",
        ),
        _number("training.steps", "steps", "of training", COUNT, "", "--steps", ""),
        name_field("SAE"),
        device_field(device),
        *_shape_fields(),
        *_recipe_fields(),
        *_log_fields(),
        *_stream_fields(),
        *job_fields(ranked=True),
        FormField(
            "shares",
            "share",
            hint="what several processes share out: the tokens of a batch, or the latents",
            choices=SHARES,
            closed=True,
            default=Default("tokens", USUAL),
            section="How it runs",
            flag="--share",
        ),
    )


def _number(
    name: str,
    label: str,
    hint: str,
    bounds: Bounds,
    section: str,
    flag: str,
    text: str,
    why: str = "",
) -> FormField:
    default = Default(text, why or (USUAL if text else ""))
    return FormField(
        name,
        label,
        hint=hint,
        bounds=bounds,
        empty=None,
        default=default,
        section=section,
        flag=flag,
    )


def _shape_fields() -> tuple[FormField, ...]:
    return (
        _number(
            "n_latents",
            "latents",
            "how many, instead of the expansion",
            LATENTS,
            _SHAPE,
            "--n-latents",
            "",
            "by the expansion",
        ),
        _number(
            "training.target_l0",
            "target L0",
            "for l1, gated and jumprelu: latents that fire on a token on average",
            FACTOR,
            _SHAPE,
            "--target-l0",
            "",
            "as k",
        ),
        _number(
            "training.l1_lambda",
            "sparsity weight",
            "for l1, gated and jumprelu: a fixed coefficient instead of a target",
            NOT_NEGATIVE,
            _SHAPE,
            "--l1-lambda",
            "",
            "whatever reaches the target",
        ),
        FormField(
            "target_layer",
            "target layer",
            hint="what a transcoder predicts",
            empty=None,
            default=Default("", "none: an SAE predicts its own input"),
            section=_SHAPE,
            flag="--target-layer",
        ),
        FormField(
            "skip",
            "skip connection",
            hint="of a transcoder",
            switch=True,
            default=NO,
            section=_SHAPE,
            flag="--skip",
        ),
        FormField(
            "init",
            "continue",
            hint="an SAE, by its id or path, to train further",
            empty=None,
            default=Default("", "a new one"),
            section=_SHAPE,
            flag="--init",
        ),
    )


def _recipe_fields() -> tuple[FormField, ...]:
    return (
        _number(
            "training.epochs",
            "epochs",
            "passes over the run, instead of steps",
            COUNT,
            _RECIPE,
            "--epochs",
            "",
            "as many as the steps come to",
        ),
        _number(
            "training.tokens",
            "tokens",
            "to train on, instead of steps",
            COUNT,
            _RECIPE,
            "--tokens",
            "",
            "as many as the steps come to",
        ),
        _number(
            "training.batch_size", "batch", "tokens a step", SIZE, _RECIPE, "--batch-size", "2048"
        ),
        _number(
            "training.accumulate",
            "accumulate",
            "pieces of a batch; more need less memory",
            SIZE,
            _RECIPE,
            "--accumulate",
            "1",
        ),
        _number("training.lr", "learning rate", "of Adam", FACTOR, _RECIPE, "--lr", ""),
        _number(
            "training.warmup_steps",
            "warm-up",
            "steps until the learning rate is reached",
            AMOUNT,
            _RECIPE,
            "--warmup-steps",
            "",
            "a tenth of the steps, at most 1,000",
        ),
        _number(
            "training.outlier_factor",
            "outliers",
            "tokens above this multiple of the median norm are left out; 0 keeps all",
            NOT_NEGATIVE,
            _RECIPE,
            "--outlier-factor",
            "10",
        ),
        FormField(
            "training.precision",
            "precision",
            hint="of the encoder's matrix product",
            choices=PRECISIONS,
            closed=True,
            default=Default("auto", "bf16 on CUDA, else fp32"),
            section=_RECIPE,
            flag="--precision",
        ),
        FormField(
            "training.shuffled",
            "shuffled",
            hint="a control: each dimension from another token, so that no structure is left",
            switch=True,
            default=NO,
            section=_RECIPE,
            flag="--shuffled",
        ),
        seed_field("training.seed", _RECIPE),
    )


def _log_fields() -> tuple[FormField, ...]:
    return (
        _number(
            "training.checkpoint_every",
            "checkpoint every",
            "so many steps; a stopped training goes on from the last",
            COUNT,
            _LOGS,
            "--checkpoint-every",
            "500",
        ),
        _number(
            "training.log_every", "log every", "so many steps", COUNT, _LOGS, "--log-every", "10"
        ),
        FormField(
            "logger",
            "logger",
            hint="where the metrics go beside our own files",
            choices=LOGGERS,
            closed=True,
            default=Default("none", USUAL),
            section=_LOGS,
            flag="--logger",
        ),
    )


def _stream_fields() -> tuple[FormField, ...]:
    fields = (
        FormField(
            "stream",
            "without a run",
            hint="capture activations while training, nothing of them is stored",
            switch=True,
            default=NO,
            flag="--stream",
        ),
        replace(model_field("stream.model.model"), required=False, empty=None),
        replace(dataset_field("stream.dataset.source"), required=False, empty=None),
        limit_field("stream."),
        context_field("stream."),
        *text_fields("stream.", ""),
        *model_fields("stream.model.", ""),
    )
    return tuple(replace(one, section=_STREAM) for one in fields)
