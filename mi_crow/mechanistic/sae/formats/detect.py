"""Recognising SAEs and their formats by file names, and choosing one of several.

Torch-free: what reads an SAE is imported when it is read.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.sae.formats.families import family_of
from mi_crow.mechanistic.sae.formats.marks import (
    DICTIONARY_LEARNING,
    GEMMA_SCOPE,
    LLAMA_SCOPE,
    OPENAI,
    SAELENS,
    SPARSIFY,
    SPARSIFY_RUN,
)
from mi_crow.mechanistic.sae.formats.saelens_names import SCALER_NAME
from mi_crow.mechanistic.sae.hook_names import point_of

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.formats.record import SaeRecord

_LISTED = 12  # SAEs that an error lists


@dataclass(frozen=True)
class FoundSae:
    """One SAE among the files of a folder or repository."""

    format: str
    label: str  # its folder, or its file where one folder holds several; '' for the root itself
    weights: str  # the file that it was recognised by
    files: tuple[str, ...]  # all that are read, including optional ones
    read: "Callable[[Path, str], SaeRecord]"  # takes the root, and the place that it came from


def find_saes(names: Iterable[str]) -> list[FoundSae]:
    """The SAEs among files, which are named relative to one root with `/`, sorted by name."""
    known = set(names)
    found = [one for name in sorted(known) if (one := _marked(name, known)) is not None]
    if found:
        return found
    # Any other .pt file may be one of OpenAI's, but trainers of other tools write .pt files too.
    return [
        _openai(name)
        for name in sorted(known)
        if name.endswith(".pt") and not family_of(name, known)
    ]


def choose(found: Sequence[FoundSae], layer: str | None, place: str) -> FoundSae:
    """The SAE that the user means; `place` is where they were found.

    Raises NotFoundError when there is none, or none of `layer`, and UserError listing them when
    several fit.
    """
    if not found:
        raise NotFoundError(
            f"no SAE at {place!r}",
            hint=f"give a folder that holds {SAELENS.config} and its weights, or files "
            "of sparsify, Gemma Scope, dictionary_learning, Llama Scope or OpenAI",
        )
    if len(found) == 1:
        return found[0]
    matching = [one for one in found if layer is not None and _is_of(one.label, layer)]
    if len(matching) == 1:
        return matching[0]
    labels = [one.label for one in matching or found]
    listed = ", ".join(labels[:_LISTED]) + (", ..." if len(labels) > _LISTED else "")
    if layer is not None and not matching:
        raise NotFoundError(f"{place!r} contains no SAE of {layer!r}", hint=f"available: {listed}")
    raise UserError(
        f"{place!r} holds {len(labels)} SAEs" + (f" of {layer!r}" if layer is not None else ""),
        hint=f"choose with --layer, or give the path of one of them: {listed}",
    )


def names_folder(label: str, layer: str) -> bool:
    """Whether `layer` is only the name of an SAE's folder, and not a hook point."""
    return not point_of(layer) and (label == layer or layer in label.split("/"))


def _is_of(label: str, layer: str) -> bool:
    """Whether the name of an SAE's folder says that it is of `layer`."""
    if label == layer:
        return True
    parts = label.split("/")
    points = {point_of(part.replace("layer_", "layers.")) for part in parts} - {""}
    # A folder named after a module holds its output; the user may mean what the module adds.
    return layer in parts or _sublayer(point_of(layer)) in {_sublayer(point) for point in points}


def _sublayer(point: str) -> str:
    return point.replace("_raw.", "_out.")


def _marked(name: str, known: set[str]) -> FoundSae | None:
    """The SAE whose weights are in the file `name`, if its name shows that."""
    folder, _, file = name.rpartition("/")

    def beside(*files: str) -> tuple[str, ...]:
        return tuple(_joined(folder, one) for one in files)

    if file == SAELENS.weights and not family_of(name, known):
        files = beside(SAELENS.config, file, SCALER_NAME)
        return FoundSae(SAELENS.format, folder, name, files, partial(_read_saelens, folder))
    if file == SPARSIFY.weights:
        run = _above(folder, SPARSIFY_RUN, known)
        files = (*beside(SPARSIFY.config, file), *((run,) if run else ()))
        read = partial(_read_sparsify, folder, run)
        return FoundSae(SPARSIFY.format, folder, name, files, read)
    if file == GEMMA_SCOPE.weights:
        read = partial(_read_gemma_scope, name, folder)
        return FoundSae(GEMMA_SCOPE.format, folder, name, (name,), read)
    if file == DICTIONARY_LEARNING.weights:
        return _dictionary(name, _joined(folder, DICTIONARY_LEARNING.config), folder)
    if name.endswith(LLAMA_SCOPE.weights):
        base = name.removesuffix(LLAMA_SCOPE.weights).rstrip("/")
        config = _joined(base, LLAMA_SCOPE.config)
        if config in known:
            read = partial(_read_llama_scope, base)
            return FoundSae(LLAMA_SCOPE.format, base, name, (config, name), read)
    return None


def one_file(name: str, known: set[str]) -> FoundSae | None:
    """The SAE in the file `name`, which the user gave: also a checkpoint that `find_saes` would not
    look for. None when the name is of no known format."""
    found = _marked(name, known)
    if found is not None or not name.endswith(".pt") or family_of(name, known):
        return found
    folder = name.rpartition("/")[0]
    config = _above(folder, DICTIONARY_LEARNING.config, known)
    return _dictionary(name, config, name) if config is not None else _openai(name)


def _dictionary(name: str, config: str, label: str) -> FoundSae:
    read = partial(_read_dictionary, name, config)
    return FoundSae(DICTIONARY_LEARNING.format, label, name, (config, name), read)


def _openai(name: str) -> FoundSae:
    return FoundSae(OPENAI.format, name, name, (name,), partial(_read_openai, name))


def _read_saelens(folder: str, root: Path, _: str) -> "SaeRecord":
    from mi_crow.mechanistic.sae.formats.saelens import read_saelens

    return read_saelens(root / folder)


def _read_sparsify(folder: str, run: str | None, root: Path, place: str) -> "SaeRecord":
    from mi_crow.mechanistic.sae.formats.sparsify import read_sparsify

    return read_sparsify(root / folder, _joined(place, folder), root / run if run else None)


def _read_gemma_scope(name: str, folder: str, root: Path, place: str) -> "SaeRecord":
    from mi_crow.mechanistic.sae.formats.gemma_scope import read_gemma_scope

    return read_gemma_scope(root / name, _joined(place, folder))


def _read_llama_scope(base: str, root: Path, _: str) -> "SaeRecord":
    from mi_crow.mechanistic.sae.formats.llama_scope import read_llama_scope

    return read_llama_scope(root / base)


def _read_dictionary(name: str, config: str, root: Path, _: str) -> "SaeRecord":
    from mi_crow.mechanistic.sae.formats.dictionary_learning import read_dictionary_learning

    return read_dictionary_learning(root / name, root / config)


def _read_openai(name: str, root: Path, _: str) -> "SaeRecord":
    from mi_crow.mechanistic.sae.formats.openai import read_openai

    return read_openai(root / name)


def _above(folder: str, file: str, known: set[str]) -> str | None:
    """`file` in `folder` or in the nearest folder above it, within the root."""
    parts = folder.split("/") if folder else []
    for count in range(len(parts), -1, -1):
        candidate = _joined("/".join(parts[:count]), file)
        if candidate in known:
            return candidate
    return None


def _joined(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder else file
