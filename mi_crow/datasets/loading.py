"""From a dataset's specification to its texts."""

from pathlib import Path
from typing import Protocol

from mi_crow.datasets.fields import Fields
from mi_crow.datasets.files import looks_like_path
from mi_crow.datasets.huggingface import needs_lengths
from mi_crow.datasets.records import LocalRecords
from mi_crow.datasets.saved import is_saved
from mi_crow.datasets.stream import TextDataset, TextStream
from mi_crow.datasets.texts import Decode, Render, Texts
from mi_crow.errors import NotFoundError, UserError
from mi_crow.paths import expanded

SAMPLE = "sample"
# Local files up to this many bytes together are held in memory.
IN_MEMORY_BYTES = 64 << 20


class Spec(Protocol):
    """Which texts to load (see `language_model.config.DatasetSpec`)."""

    @property
    def source(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def text_field(self) -> str: ...
    @property
    def label_field(self) -> str | None: ...
    @property
    def limit(self) -> int | None: ...
    @property
    def sample_seed(self) -> int | None: ...
    @property
    def streaming(self) -> bool: ...


def load_texts(
    spec: Spec,
    offline: bool = False,
    render: Render | None = None,
    decode: Decode | None = None,
) -> Texts:
    """The texts of `spec`. `sample` is the corpus that comes with mi-crow.

    With a limit no more than that many documents are read. With a seed `limit` documents are drawn
    at random, or all are shuffled. `render` makes the texts of conversations, `decode` those of
    token ids. With `offline` the hub is never asked. Raises UserError or NotFoundError in one
    sentence.
    """
    path = _local_path(spec)
    if path is not None and not is_saved(path):
        return _from_files(path, spec, render, decode)
    if path is not None:
        texts = TextStream.from_local(
            path, spec.text_field, spec.label_field, spec.split, render, decode
        )
    else:
        texts = TextStream.from_huggingface(
            spec.source,
            spec.split,
            spec.text_field,
            spec.label_field,
            spec.streaming or _few_wanted(spec),
            offline,
            render,
            decode,
        )
    return _limited(texts, spec)


def _local_path(spec: Spec) -> Path | None:
    """Where the texts are on this machine; None for a data set on the hub."""
    if spec.source == SAMPLE:
        from sample_data import corpus_path

        return corpus_path()
    path = expanded(spec.source)
    if path.exists():
        return path
    if looks_like_path(spec.source):
        raise NotFoundError(f"dataset {spec.source!r} not found", hint="there is no such path")
    return None


def _few_wanted(spec: Spec) -> bool:
    """True if only the first documents are wanted, so that fetching them all would be a waste."""
    return spec.limit is not None and spec.sample_seed is None and not needs_lengths(spec.split)


def _from_files(path: Path, spec: Spec, render: Render | None, decode: Decode | None) -> Texts:
    fields = Fields(spec.text_field, spec.label_field)
    records = LocalRecords(path, fields, spec.source)
    texts = TextStream(records, render, decode)
    if spec.streaming or records.bytes > IN_MEMORY_BYTES:
        return _limited(texts, spec)
    if spec.limit is not None and spec.sample_seed is None:
        return TextDataset.from_texts(texts.head(spec.limit))
    return _limited(TextDataset.from_texts(texts), spec)


def _limited(texts: TextDataset | TextStream, spec: Spec) -> Texts:
    """The documents within the limit, drawn at random if there is a seed."""
    if spec.sample_seed is None:
        return texts if spec.limit is None else texts.head(spec.limit)
    if spec.limit is None and texts.size is None:
        raise UserError(
            f"a sample of {spec.source!r}, whose length is not known, needs a limit",
            hint="give --limit",
        )
    n = spec.limit if spec.limit is not None else texts.size
    return texts.random_sample(n or 1, spec.sample_seed)
