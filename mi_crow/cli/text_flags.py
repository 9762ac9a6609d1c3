"""The flags for texts and how they become rows of tokens."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from mi_crow.cli.arguments import (
    add_fields,
    add_model_flags,
    add_switch,
    device_of,
)
from mi_crow.errors import UserError
from mi_crow.language_model.config import BOS, CaptureConfig, DatasetSpec, LiveTexts, ModelSpec
from mi_crow.same_fields import same_fields

_OF_ROWS = ("context_length", "long_documents", "pack", "bos", "keep_special")
# Options that only matter with a dataset or a model of one's own; --offline always holds.
_OF_DATA = ("split", "text_field", "label_field", "limit", "sample_seed", "streaming")
OF_TEXTS = (*_OF_DATA, *_OF_ROWS)
OF_A_MODEL = ("revision", "gguf_file", "model_dtype", "quantize", "trust_remote_code")


def add_text_flags(parser: ArgumentParser, default: str | None = "sample") -> None:
    """Which texts to read, and how they become rows of tokens."""
    group = parser.add_argument_group("texts")
    group.add_argument(
        "--dataset",
        default=default,
        help="txt, md, json, jsonl, ndjson, csv, tsv (also .gz, .zst) or parquet file, folder, Hub "
        "id or `sample`" + (" (the default)" if default == "sample" else ""),
    )
    add_fields(
        group,
        DatasetSpec,
        {
            "split": "split of a Hugging Face dataset",
            "text_field": "field with the text",
            "label_field": "field with labels (default: `label` if present)",
            "limit": "maximum number of documents",
            "sample_seed": "sample --limit documents at random with this seed",
            "streaming": "stream a Hub dataset instead of downloading it first",
        },
    )
    add_fields(
        group,
        CaptureConfig,
        {
            "context_length": "tokens per row",
            "long_documents": "truncate documents to the context length (the default) or split "
            "them into windows",
            "pack": "pack short documents into rows, end-of-text between",
        },
    )
    add_bos(group)
    add_switch(group, "--keep-special", "keep special tokens")


def add_bos(parser: ArgumentParser | Any) -> None:
    """Whether texts get a BOS token in front."""
    parser.add_argument(
        "--bos",
        choices=BOS,
        default="auto",
        help="prepend a BOS token: as the SAE was trained, else as the tokenizer does (auto, the "
        "default), yes or no; never a second one",
    )


def leave_out(parser: ArgumentParser, names: Sequence[str]) -> None:
    """Makes options None where they are not given, so that `refuse_given` can tell. Call it once
    they are all added."""
    defaults = {name: parser.get_default(name) for name in names}
    parser.set_defaults(**dict.fromkeys(names), left_out=defaults)


def refuse_given(options: Namespace, because: str, hint: str) -> None:
    """Raises UserError for the first option of `leave_out` that was given, which would silently
    have no effect."""
    for name in options.left_out:
        if getattr(options, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} {because}", hint=hint)


def fill_in(options: Namespace) -> None:
    """Gives the options of `leave_out` that were not given their defaults."""
    for name, default in options.left_out.items():
        if getattr(options, name) is None:
            setattr(options, name, default)


def dataset_of(options: Namespace, token_limit: int | None = None) -> DatasetSpec:
    """The dataset named by the flags."""
    return same_fields(DatasetSpec, options, source=options.dataset, token_limit=token_limit)


def rows_of(options: Namespace) -> dict[str, Any]:
    """How texts become rows: CaptureConfig fields of the same names."""
    return {name: getattr(options, name) for name in _OF_ROWS}


def model_of(options: Namespace) -> ModelSpec:
    """The model named by `add_model_flags` and `add_device`. Raises UserError."""
    device, dtype = device_of(options), options.quantize or options.model_dtype
    if options.quantize and options.model_dtype not in (None, "auto"):
        raise UserError("--quantize and --model-dtype were both given", hint="give one of them")
    return same_fields(ModelSpec, options, dtype=dtype, device=device)


def add_live_texts(parser: ArgumentParser) -> None:
    """Texts that go through the model in place of a stored run: --dataset, and what it takes."""
    add_text_flags(parser, default=None)
    add_fields(parser, DatasetSpec, {"token_limit": "read at most this many tokens of --dataset"})
    add_model_flags(parser, default=None)
    leave_out(parser, (*OF_TEXTS, "token_limit", *OF_A_MODEL))


def live_texts(options: Namespace) -> LiveTexts | None:
    """The texts that --dataset and its flags describe; None without. Raises UserError."""
    if options.dataset is None:
        refuse_given(options, "is for --dataset: a run already has its texts", "leave it out")
        return None
    for name in OF_A_MODEL if options.model is None else ():
        if getattr(options, name) is not None:
            said = f"--{name.replace('_', '-')} is for a model that is named"
            raise UserError(said, hint="name it with --model, the SAE's own too")
    fill_in(options)
    return LiveTexts(
        dataset_of(options, options.token_limit),
        model_of(options) if options.model is not None else None,
        **rows_of(options),
    )
