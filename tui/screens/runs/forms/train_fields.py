"""The fields of the form of a training, by their sections."""

from dataclasses import replace

from mi_crow.bounds import AMOUNT, COUNT, EXPANSION, FACTOR, LATENTS, NOT_NEGATIVE, SHARE, SIZE
from mi_crow.mechanistic.sae.config import (
    AIM_FOR_L0_IN_WORDS,
    ARCHITECTURES,
    FAMILIES,
    FINETUNES,
    LOGGERS,
    PENALTIES,
    PRECISIONS,
)
from mi_crow.mechanistic.sae.parallel.settings import GRADIENTS, SHARES
from tui.screens.runs.forms.parameters import FieldsOf
from tui.screens.runs.forms.shared import (
    HOW,
    MODEL_HINT,
    TEXTS_HINT,
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


def train_fields(ask: FieldsOf, device: str) -> tuple[FormField, ...]:
    """All of them, the few that everybody needs first."""
    layers = "of the run; with commas between several, a training for each, or one of all"
    family = "an SAE of a layer, or one of several: a crosscoder, a cross-layer transcoder (clt)"
    arch = "how the latents that fire are chosen"
    wide = "latents per input of the layer; several train an SAE each, side by side"
    firing = "latents that fire on a token, exactly or as the target; several: an SAE each"
    shares = "what several processes share out: the tokens of a batch, or the latents"
    copies = "of an SAE whose latents are shared: they share the tokens of a batch"
    sent = "what processes that share tokens send their gradients in"
    return (
        ask("run_id", "run", "the activations to train on", required=True),
        ask("layer", "layer", layers, required=True, several=True),
        ask("family", "family", family, choices=FAMILIES),
        ask("arch", "architecture", arch, choices=ARCHITECTURES),
        ask("expansion", "expansion", wide, EXPANSION, several=True),
        ask("k", "k", firing, LATENTS, several=True),
        ask("training.steps", "steps", "of the optimizer, each on one batch of tokens", COUNT),
        name_field(ask, "SAE"),
        device_field(ask, device),
        *_shape_fields(replace(ask, section="Size and sparsity")),
        *_recipe_fields(replace(ask, section="Length and recipe")),
        *_log_fields(replace(ask, section="Checkpoints and logs")),
        *_stream_fields(replace(ask, section="Without a run: a model reads texts")),
        *job_fields(ranked=True),
        ask("shares", "share", shares, choices=SHARES, section=HOW),
        ask("copies", "copies", copies, SIZE, "one", section=HOW),
        ask("gradients", "gradients", sent, choices=GRADIENTS, section=HOW),
    )


def _shape_fields(ask: FieldsOf) -> tuple[FormField, ...]:
    many = "how many, instead of the expansion"
    target = f"for {AIM_FOR_L0_IN_WORDS}: latents that fire on a token on average"
    weight = f"for {AIM_FOR_L0_IN_WORDS}: a fixed coefficient instead of a target"
    reaches, own = "whatever reaches the target", "none: an SAE predicts its own input"
    further = "an SAE, by its id or path, to train further"
    finetune = "the SAE that is continued: kl trains it on the model's predictions too"
    penalty = "on latents that fire: their number, or for jumprelu a tanh of each"
    tuned = "of a crosscoder: run of a model made from the run's, over the same texts"
    return (
        ask("n_latents", "latents", many, LATENTS, "by the expansion"),
        ask("training.target_l0", "target L0", target, FACTOR, "as k"),
        ask("training.l1_lambda", "sparsity weight", weight, NOT_NEGATIVE, reaches),
        ask("training.penalty", "penalty", penalty, choices=PENALTIES),
        ask("target_layer", "target layer", "what a transcoder predicts", why=own),
        ask("skip", "skip connection", "of a transcoder"),
        ask("init", "continue", further, why="a new one"),
        ask("tuned_run", "tuned run", tuned, why="none: one model"),
        ask("finetune", "finetune", finetune, choices=FINETUNES),
    )


def _recipe_fields(ask: FieldsOf) -> tuple[FormField, ...]:
    length = "as many as the steps come to"
    pieces = "pieces of a batch; more need less memory"
    warm, tenth = "steps until the learning rate is reached", "a tenth of the steps, at most 1,000"
    outliers = "tokens above this multiple of the median norm are left out; 0 keeps all"
    apart, none = "weight of a loss that keeps decoder rows apart (OrtSAE)", "none"
    whiten = "train on whitened activations; what is saved reads plain ones"
    even = "share of even variance in the covariance that whitening uses"
    aligned = "the inner product of each latent's encoder and decoder row stays one"
    control = "a control: each dimension from another token, so that no structure is left"
    return (
        ask("training.epochs", "epochs", "passes over the run, instead of steps", COUNT, length),
        ask("training.tokens", "tokens", "to train on, instead of steps", COUNT, length),
        ask("training.batch_size", "batch", "tokens a step", SIZE),
        ask("training.accumulate", "accumulate", pieces, SIZE),
        ask("training.lr", "learning rate", "of Adam", FACTOR),
        ask("training.warmup_steps", "warm-up", warm, AMOUNT, tenth),
        ask("training.outlier_factor", "outliers", outliers, NOT_NEGATIVE),
        ask(
            "training.precision",
            "precision",
            "of the encoder's matrix product",
            why="bf16 on CUDA, else fp32",
            choices=PRECISIONS,
        ),
        ask("training.orthogonality", "orthogonality", apart, NOT_NEGATIVE, none),
        ask("training.aligned", "aligned", aligned),
        ask("training.whiten", "whiten", whiten),
        ask("training.shrinkage", "shrinkage", even, SHARE),
        ask("training.shuffled", "shuffled", control),
        seed_field(ask, "training.seed"),
    )


def _log_fields(ask: FieldsOf) -> tuple[FormField, ...]:
    stopped = "minutes between them; a stopped training goes on from the last"
    steps, clock = "steps between further checkpoints", "by the clock alone"
    beside = "where the metrics go beside our own files"
    return (
        ask("training.checkpoint_minutes", "checkpoints", stopped, FACTOR),
        ask("training.checkpoint_every", "checkpoint every", steps, COUNT, clock),
        ask("training.log_every", "log every", "steps between logged metrics", COUNT),
        ask("logger", "logger", beside, choices=LOGGERS),
    )


def _stream_fields(ask: FieldsOf) -> tuple[FormField, ...]:
    hint = "capture activations while training, without storing them"
    tuned = "of a crosscoder: a model made from the other; both read the texts"
    of, none = replace(ask, prefix="stream."), "none: a run is read"
    return (
        ask("stream", "without a run", hint, switch=True, default=Default("no")),
        of("model.model", "model", MODEL_HINT, why=none, empty=None),
        of("dataset.source", "texts", TEXTS_HINT, why=none, empty=None),
        limit_field(of),
        context_field(of),
        *text_fields(of),
        *model_fields(of),
        ask("tuned_model", "tuned model", tuned, why="none: one model", empty=None),
        ask("tuned_revision", "its revision", "a branch, tag or commit", why="its main branch"),
    )
