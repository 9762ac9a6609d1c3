"""From a dataset's specification to its texts."""

from pathlib import Path
from typing import Protocol

from mi_crow.datasets.files import SUFFIXES, read_path
from mi_crow.datasets.text import TextDataset
from mi_crow.datasets.texts import Render
from mi_crow.errors import NotFoundError

SAMPLE = "sample"


class Spec(Protocol):
    """What says which texts (see `language_model.config.DatasetSpec`)."""

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


def load_texts(spec: Spec, offline: bool = False, render: Render | None = None) -> TextDataset:
    """The texts that `spec` stands for. `sample` is the corpus that comes with mi-crow.

    With `offline` the hub is never asked. Raises UserError or NotFoundError in one sentence.
    """
    dataset = _load(spec, offline)
    if spec.limit is None:
        return dataset
    if spec.sample_seed is not None:
        return dataset.random_sample(spec.limit, spec.sample_seed)
    return dataset.head(spec.limit)


def _load(spec: Spec, offline: bool) -> TextDataset:
    if spec.source == SAMPLE:
        from sample_data import corpus_path

        return TextDataset.from_rows(_sample_rows(corpus_path(), spec), SAMPLE)
    path = Path(spec.source).expanduser()
    if path.exists():
        return TextDataset.from_local(path, spec.text_field, spec.label_field)
    if path.is_absolute() or path.suffix in SUFFIXES or spec.source.count("/") > 1:
        raise NotFoundError(f"dataset {spec.source!r} not found", hint="there is no such path")
    limit = spec.limit if spec.sample_seed is None else None
    return TextDataset.from_huggingface(
        spec.source, spec.split, spec.text_field, spec.label_field, limit, offline
    )


def _sample_rows(path: Path, spec: Spec) -> list[tuple[str, str | None]]:
    return read_path(path, spec.text_field, spec.label_field)
