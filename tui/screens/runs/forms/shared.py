"""Fields that several forms have: the model, the texts, the device, how the job runs."""

from functools import partial

from mi_crow.bounds import COUNT, PROCESSES, SEED, SIZE
from mi_crow.language_model.config import BOS, LONG_DOCUMENTS, MODEL_DTYPES
from mi_crow.store.workspace import RunSummary
from tui.screens.runs.forms.parameters import FieldsOf
from tui.widgets.forms.fields import Default, FormField

HOW = "How it runs"
LAUNCHERS = ("local", "torchrun", "slurm")
DEVICES = ("auto", "cuda", "cpu", "mps", "spread")
MODEL_HINT = "hub id, folder, .gguf file, or sample"
TEXTS_HINT = "file, folder, data set on the hub, or sample"


def first_layer(run: RunSummary) -> Default:
    """The first layer of a run, and how many it has."""
    layers = run.manifest.layers
    which = "the only one" if len(layers) == 1 else f"the first of {len(layers)}"
    return Default(layers[0].point, f"{which} of {run.run_id}")


def device_field(ask: FieldsOf, usual: str, name: str = "device") -> FormField:
    """Where the job runs; `usual` is the device of the settings, or auto."""
    default = Default(usual, "the fastest that is free" if usual == "auto" else "your settings")
    hint = "auto, cpu, cuda, cuda:1, mps; spread: over all GPUs and host memory"
    return ask(name, "device", hint, choices=DEVICES, closed=False, default=default)


def name_field(ask: FieldsOf, of: str) -> FormField:
    hint = f"the id of the new {of}: letters, digits, . _ -"
    return ask("name", "name", hint, why="made of date and time")


def seed_field(ask: FieldsOf, name: str = "seed") -> FormField:
    return ask(name, "seed", "the same seed gives the same result", SEED)


def model_fields(ask: FieldsOf) -> tuple[FormField, ...]:
    """How the model is loaded."""
    revision = "branch, tag or commit of a model on the hub"
    return (
        ask("model.revision", "revision", revision, why="its main branch"),
        ask("model.gguf_file", "GGUF file", "the .gguf file in the model's folder", why="none"),
        ask(
            "model.dtype",
            "computed in",
            "the precision that the model runs in, or its weights are kept in",
            why="the fastest that loses nothing",
            choices=MODEL_DTYPES,
        ),
        ask("model.offline", "offline", "never use the network"),
        ask("model.trust_remote_code", "run its own code", "only for models that you trust"),
    )


def limit_field(ask: FieldsOf) -> FormField:
    return ask("dataset.limit", "documents", "how many at most", COUNT, "all of them")


def context_field(ask: FieldsOf) -> FormField:
    return ask("context_length", "context", "tokens that the model sees at once", SIZE)


def token_limit_field(ask: FieldsOf) -> FormField:
    return ask("dataset.token_limit", "tokens", "how many at most", COUNT, "all of them")


def text_fields(ask: FieldsOf) -> tuple[FormField, ...]:
    """Which texts of a data set, and how they become rows of tokens."""
    sample = "a seed: documents are drawn at random with it"
    streamed = "read a data set of the hub without a copy on the disk"
    longer = "truncate them to the context, or split them into windows of it"
    packed = "several short texts in a row, the end-of-text token between them"
    bos, special = "a BOS token in front of each row", "keep the activations of special tokens"
    return (
        ask("dataset.split", "split", "of a data set on the hub"),
        ask("dataset.text_field", "text field", "the column with the texts"),
        ask(
            "dataset.label_field",
            "label field",
            "the column with the labels",
            why="label, where there is one",
        ),
        ask("dataset.sample_seed", "random sample", sample, SEED, "the first documents"),
        ask("dataset.streaming", "streaming", streamed),
        ask("long_documents", "longer texts", longer, choices=LONG_DOCUMENTS),
        ask("pack", "pack", packed),
        ask("bos", "BOS in front", bos, why="as the tokenizer does", choices=BOS),
        ask("keep_special", "special tokens", special),
    )


def job_fields(*, ranked: bool) -> tuple[FormField, ...]:
    """How the job runs; several processes can share the work of a `ranked` one."""
    field = partial(FormField, section=HOW, empty=None)
    launcher = field(
        "job.launcher",
        "launcher",
        hint="what starts the processes of the job",
        choices=tuple(one for one in LAUNCHERS if ranked or one != "torchrun"),
        closed=True,
        default=Default("local", "on this machine"),
        flag="--launcher",
    )
    processes = field(
        "job.nproc",
        "processes",
        hint="that share the work on one machine, each with a GPU of its own",
        bounds=PROCESSES,
        default=Default("", "one"),
        flag="--nproc",
    )
    time = Default("", "24 hours")
    options, none = "of sbatch, as in account=lab; commas between several", Default("", "none")
    waits, at_once = "the job that has to finish first", Default("", "at once")
    usual = Default("", "Slurm's default")
    rest = (
        field(
            "job.slurm.partition",
            "partition",
            hint="of Slurm, where that is the launcher",
            default=usual,
            flag="--partition",
        ),
        field(
            "job.slurm.time",
            "time limit",
            hint="of Slurm, in minutes or as H:MM:SS",
            default=time,
            flag="--time",
        ),
        field(
            "job.slurm.args",
            "other options",
            hint=options,
            several=True,
            default=none,
            flag="--slurm-arg",
        ),
        field("job.after", "after", hint=waits, default=at_once, flag="--after"),
    )
    return (launcher, processes, *rest) if ranked else (launcher, *rest)
