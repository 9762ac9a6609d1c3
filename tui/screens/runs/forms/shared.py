"""Fields that several forms have: the model, the texts, the device, how the job runs."""

from mi_crow.bounds import COUNT, PROCESSES, SEED, SIZE
from mi_crow.language_model.config import BOS, LONG_DOCUMENTS
from tui.widgets.forms.fields import Default, FormField

USUAL = "the usual"
LAUNCHERS = ("local", "torchrun", "slurm")
DEVICES = ("auto", "cuda", "cpu", "mps")
NO = Default("no")


def device_field(usual: str, name: str = "device") -> FormField:
    """Where the job runs; `usual` is the device of the settings, or auto."""
    source = "the fastest that is free" if usual == "auto" else "your settings"
    return FormField(
        name,
        "device",
        hint="auto, cpu, cuda, cuda:1, mps",
        choices=DEVICES,
        default=Default(usual, source),
        flag="--device",
    )


def name_field(of: str) -> FormField:
    return FormField(
        "name",
        "name",
        hint=f"the id of the new {of}: letters, digits, . _ -",
        empty=None,
        default=Default("", "made from the time"),
        flag="--name",
    )


def seed_field(name: str, section: str) -> FormField:
    return FormField(
        name,
        "seed",
        hint="the same seed gives the same result",
        bounds=SEED,
        default=Default("0", USUAL),
        section=section,
        flag="--seed",
    )


def model_fields(prefix: str, section: str) -> tuple[FormField, ...]:
    """How the model of `prefix` is loaded."""
    return (
        FormField(
            f"{prefix}revision",
            "revision",
            hint="branch, tag or commit of a model on the hub",
            empty=None,
            default=Default("", "its main branch"),
            section=section,
            flag="--revision",
        ),
        FormField(
            f"{prefix}gguf_file",
            "GGUF file",
            hint="the .gguf file in the model's folder",
            empty=None,
            default=Default("", "none"),
            section=section,
            flag="--gguf-file",
        ),
        FormField(
            f"{prefix}dtype",
            "computed in",
            hint="the precision that the model runs in",
            choices=("auto", "fp32", "bf16", "fp16"),
            closed=True,
            default=Default("auto", "the fastest that loses nothing"),
            section=section,
            flag="--model-dtype",
        ),
        FormField(
            f"{prefix}offline",
            "offline",
            hint="never use the network",
            switch=True,
            default=NO,
            section=section,
            flag="--offline",
        ),
        FormField(
            f"{prefix}trust_remote_code",
            "run its own code",
            hint="only for models that you trust",
            switch=True,
            default=NO,
            section=section,
            flag="--trust-remote-code",
        ),
    )


def limit_field(prefix: str, section: str = "") -> FormField:
    return FormField(
        f"{prefix}dataset.limit",
        "documents",
        hint="how many at most",
        bounds=COUNT,
        empty=None,
        default=Default("", "all of them"),
        section=section,
        flag="--limit",
    )


def context_field(prefix: str, section: str = "") -> FormField:
    return FormField(
        f"{prefix}context_length",
        "context",
        hint="tokens that the model sees at once",
        bounds=SIZE,
        default=Default("128", USUAL),
        section=section,
        flag="--context-length",
    )


def token_limit_field(prefix: str, section: str) -> FormField:
    return FormField(
        f"{prefix}dataset.token_limit",
        "tokens",
        hint="how many at most",
        bounds=COUNT,
        empty=None,
        default=Default("", "all of them"),
        section=section,
        flag="--token-limit",
    )


def text_fields(prefix: str, section: str) -> tuple[FormField, ...]:
    """Which texts of a data set, and how they become rows of tokens."""
    dataset = f"{prefix}dataset."
    return (
        FormField(
            f"{dataset}split",
            "split",
            hint="of a data set on the hub",
            default=Default("train", USUAL),
            section=section,
            flag="--split",
        ),
        FormField(
            f"{dataset}text_field",
            "text field",
            hint="the column with the texts",
            default=Default("text", USUAL),
            section=section,
            flag="--text-field",
        ),
        FormField(
            f"{dataset}label_field",
            "label field",
            hint="the column with the labels",
            empty=None,
            default=Default("", "label, where there is one"),
            section=section,
            flag="--label-field",
        ),
        FormField(
            f"{dataset}sample_seed",
            "random sample",
            hint="a seed: documents are drawn at random with it",
            bounds=SEED,
            empty=None,
            default=Default("", "the first documents"),
            section=section,
            flag="--sample-seed",
        ),
        FormField(
            f"{dataset}streaming",
            "as it arrives",
            hint="read a data set of the hub without a copy on the disk",
            switch=True,
            default=NO,
            section=section,
            flag="--streaming",
        ),
        FormField(
            f"{prefix}long_documents",
            "longer texts",
            hint="truncate them to the context, or split them into windows of it",
            choices=LONG_DOCUMENTS,
            closed=True,
            default=Default("truncate", USUAL),
            section=section,
            flag="--long-documents",
        ),
        FormField(
            f"{prefix}pack",
            "pack",
            hint="several short texts in a row, the end-of-text token between them",
            switch=True,
            default=NO,
            section=section,
            flag="--pack",
        ),
        FormField(
            f"{prefix}bos",
            "BOS in front",
            hint="a BOS token in front of each row",
            choices=BOS,
            closed=True,
            default=Default("auto", "as the tokenizer does"),
            section=section,
            flag="--bos",
        ),
        FormField(
            f"{prefix}keep_special",
            "special tokens",
            hint="keep the activations of special tokens",
            switch=True,
            default=NO,
            section=section,
            flag="--keep-special",
        ),
    )


def job_fields(*, ranked: bool) -> tuple[FormField, ...]:
    """How the job runs; several processes can share the work of a `ranked` one."""
    section = "How it runs"
    launchers = LAUNCHERS if ranked else tuple(one for one in LAUNCHERS if one != "torchrun")
    launcher = FormField(
        "job.launcher",
        "launcher",
        hint="what starts the processes of the job",
        choices=launchers,
        closed=True,
        default=Default("local", "on this machine"),
        section=section,
        flag="--launcher",
    )
    processes = FormField(
        "job.nproc",
        "processes",
        hint="that share the work on one machine, each with a GPU of its own",
        bounds=PROCESSES,
        empty=None,
        default=Default("", "one"),
        section=section,
        flag="--nproc",
    )
    rest = (
        FormField(
            "job.slurm.partition",
            "partition",
            hint="of Slurm",
            empty=None,
            section=section,
            flag="--partition",
        ),
        FormField(
            "job.slurm.time",
            "time limit",
            hint="of Slurm, in minutes or as H:MM:SS",
            empty=None,
            default=Default("", "24 hours"),
            section=section,
            flag="--time",
        ),
        FormField(
            "job.slurm.args",
            "other options",
            hint="of sbatch, as in account=lab; commas between several",
            several=True,
            section=section,
            flag="--slurm-arg",
        ),
        FormField(
            "job.after",
            "after",
            hint="the job that has to finish first",
            empty=None,
            default=Default("", "at once"),
            section=section,
            flag="--after",
        ),
    )
    return (launcher, processes, *rest) if ranked else (launcher, *rest)
