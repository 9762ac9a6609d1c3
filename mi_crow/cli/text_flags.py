"""The flags for texts and how they become rows of tokens."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from mi_crow.cli.arguments import bounded_size, device_of, positive, seed_number
from mi_crow.errors import UserError
from mi_crow.language_model.config import BOS, LONG_DOCUMENTS, DatasetSpec, ModelSpec

# Options that only matter with a dataset or a model of one's own; --offline always holds.
OF_TEXTS = (
    "split",
    "text_field",
    "label_field",
    "limit",
    "sample_seed",
    "streaming",
    "context_length",
    "long_documents",
    "pack",
    "bos",
    "keep_special",
)
OF_A_MODEL = ("revision", "gguf_file", "model_dtype", "trust_remote_code")


def add_text_flags(parser: ArgumentParser, default: str | None = "sample") -> None:
    """Which texts to read, and how they become rows of tokens."""
    group = parser.add_argument_group("texts")
    group.add_argument(
        "--dataset",
        default=default,
        help="txt, md, json, jsonl, csv, tsv (also .gz, .zst) or parquet file, folder, Hub id or "
        "`sample`" + (" (the default)" if default == "sample" else ""),
    )
    group.add_argument(
        "--split", default="train", help="split of a Hugging Face dataset (default: train)"
    )
    group.add_argument("--text-field", default="text", help="field with the text (default: text)")
    group.add_argument("--label-field", help="field with labels (default: `label` if present)")
    group.add_argument("--limit", type=positive, help="maximum number of documents")
    group.add_argument(
        "--sample-seed", type=seed_number, help="sample --limit documents at random with this seed"
    )
    group.add_argument(
        "--streaming",
        action="store_true",
        help="stream a Hub dataset instead of downloading it first",
    )
    group.add_argument(
        "--context-length",
        type=bounded_size,
        default=128,
        help="tokens per row (default: 128)",
    )
    group.add_argument(
        "--long-documents",
        default="truncate",
        choices=LONG_DOCUMENTS,
        help="truncate documents to the context length (the default) or split them into windows",
    )
    group.add_argument(
        "--pack", action="store_true", help="pack short documents into rows, end-of-text between"
    )
    add_bos(group)
    group.add_argument("--keep-special", action="store_true", help="keep special tokens")


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
    return DatasetSpec(
        options.dataset,
        split=options.split,
        text_field=options.text_field,
        label_field=options.label_field,
        limit=options.limit,
        token_limit=token_limit,
        sample_seed=options.sample_seed,
        streaming=options.streaming,
    )


def rows_of(options: Namespace) -> dict[str, Any]:
    """How texts become rows: CaptureConfig fields of the same names."""
    return {
        "context_length": options.context_length,
        "long_documents": options.long_documents,
        "pack": options.pack,
        "keep_special": options.keep_special,
        "bos": options.bos,
    }


def model_of(options: Namespace) -> ModelSpec:
    """The model named by `add_model_flags` and `add_device`. Raises UserError."""
    return ModelSpec(
        options.model,
        gguf_file=options.gguf_file,
        revision=options.revision,
        dtype=options.model_dtype,
        device=device_of(options),
        offline=options.offline,
        trust_remote_code=options.trust_remote_code,
    )
