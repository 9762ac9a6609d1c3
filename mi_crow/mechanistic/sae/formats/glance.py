"""A look at an SAE before it is imported: its format, its layer, its size. Torch-free."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_crow.errors import MiCrowError
from mi_crow.language_model.model_names import hub_model
from mi_crow.mechanistic.sae.formats.detect import FoundSae, find_saes
from mi_crow.mechanistic.sae.formats.files import LocatedFiles, listed, locate
from mi_crow.mechanistic.sae.formats.marks import OPENSAE, SAELENS, SPARSIFY, SPARSIFY_RUN, TORCH
from mi_crow.mechanistic.sae.hook_names import point_of
from mi_crow.store.json_file import read_json
from mi_crow.store.json_object import JsonObject

_MOST_FILES = 5_000  # a look while somebody types must not walk a whole disk


@dataclass(frozen=True)
class Glance:
    """What can be said of a place without reading weights. What is unknown is empty."""

    labels: tuple[str, ...] = ()  # of the SAEs there; with several, one has to be chosen
    format: str = ""
    name: str = ""  # what the SAE would be called
    bytes: int = 0
    download: int = 0  # bytes that are not on this machine yet
    model: str = ""
    point: str = ""
    facts: str = ""  # architecture and size, in words
    whole: bool = True  # False: the place holds more files than were looked at


def files_at(path: str, revision: str | None = None, *, offline: bool) -> LocatedFiles:
    """The files at a path or hub id, of a large folder only some; `offline`: without the network.
    Raises NotFoundError, UserError."""
    return locate(path, revision, offline, most=_MOST_FILES)


def glance(files: LocatedFiles, layer: str | None = None) -> Glance:
    """What is there, if anything is said about it. Raises NotFoundError, UserError, OSError."""
    labels = tuple(one.label for one in files.saes())
    whole = len(files.names) <= _MOST_FILES
    if not labels and not whole:
        return Glance(whole=False)
    if len(labels) > 1 and layer is None:
        return Glance(labels, files.saes()[0].format, whole=whole)
    found = files.find(layer)
    config = _config(files, found)
    return Glance(
        labels,
        found.format,
        files.name_of(found),
        files.bytes_of(found),
        files.missing_bytes(found),
        _model(files, found, config),
        _point(found, config),
        _facts(config),
        whole,
    )


def cached_repositories() -> Iterator[tuple[str, int]]:
    """The repositories in the local cache of the hub that hold SAEs, each with how many."""
    from huggingface_hub import constants

    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        snapshots = sorted(folder.glob("snapshots/*"), key=_changed)
        names = listed(snapshots[-1], _MOST_FILES) if snapshots else []
        if number := sum(is_sure(one, names) for one in find_saes(names)):
            yield "/".join(folder.name.split("--")[1:]), number


def is_sure(found: FoundSae, names: Collection[str]) -> bool:
    """Whether its files cannot be those of a language model, which some formats are called like."""
    of_a_model = any(name.rpartition("/")[2].startswith("tokenizer") for name in names)
    return found.format != OPENSAE.format and not (found.format == TORCH.format and of_a_model)


def _changed(folder: Path) -> float:
    with suppress(OSError):
        return folder.stat().st_mtime
    return 0.0


def _config(files: LocatedFiles, found: FoundSae) -> JsonObject:
    """The SAE's configuration where the machine has it; what cannot be read is left to the import,
    which says why."""
    if files.root is not None and found.format in (SAELENS.format, SPARSIFY.format):
        with suppress(MiCrowError, OSError):
            path = files.root / found.label / SAELENS.config
            return JsonObject.of(read_json(path), path.name)
    return JsonObject({}, "")


def _model(files: LocatedFiles, found: FoundSae, config: JsonObject) -> str:
    if found.format == SAELENS.format:
        return hub_model(_text(_metadata(config), "model_name") or _text(config, "model_name"))
    if found.format == SPARSIFY.format and files.root is not None:
        run = next((name for name in found.files if name.endswith(SPARSIFY_RUN)), "")
        with suppress(MiCrowError, OSError):
            return _text(JsonObject.of(read_json(files.root / run), run), "model")
    return ""


def _point(found: FoundSae, config: JsonObject) -> str:
    if found.format == SPARSIFY.format:
        return next(filter(None, map(point_of, found.label.split("/"))), "")
    names = [_text(_metadata(config), "hook_name")]
    names += [_text(config, key) for key in ("hook_name", "hook_point")]
    return next((point_of(name) or name for name in names if name), "")


def _facts(config: JsonObject) -> str:
    inputs = _number(config, "d_in")
    latents = _number(config, "d_sae") or _number(config, "num_latents")
    if not latents:
        latents = inputs * _number(config, "expansion_factor")
    words = [_text(config, "architecture") or _text(config, "activation")]
    words += [f"{latents:,} latents of {inputs:,} inputs"] if latents and inputs else []
    return ", ".join(filter(None, words))


def _metadata(config: JsonObject) -> JsonObject:
    found: Any = config.values.get("metadata")
    return JsonObject(found if isinstance(found, dict) else {}, "metadata")


def _text(config: JsonObject, key: str) -> str:
    found = config.values.get(key)
    return found if isinstance(found, str) else ""


def _number(config: JsonObject, key: str) -> int:
    found = config.values.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0
