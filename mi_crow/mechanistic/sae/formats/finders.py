"""Which files are an SAE of which format, by their names: one function a format, none reads one.

Torch-free: what reads an SAE is imported when it is read.
"""

import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.mechanistic.sae.formats.found import FoundSae, above, folder_of, joined
from mi_crow.mechanistic.sae.formats.marks import (
    APOLLO,
    CIRCUIT_TRACER,
    CIRCUIT_TRACER_CLT,
    DICTIONARY_LEARNING,
    DICTIONARY_WEIGHTS,
    GEMMA_SCOPE,
    GEMMA_SCOPE_2,
    GEMMA_SCOPE_2_SET,
    KISSANE,
    LLAMA_SCOPE,
    LLAMASCOPIUM,
    OPENSAE,
    SAELENS,
    SPARSIFY,
    SPARSIFY_RUN,
    TORCH,
    TORCH_ENDINGS,
)
from mi_crow.mechanistic.sae.formats.saelens_names import SCALER_NAME

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.cross_layer.record import CrossLayerRecord
    from mi_crow.mechanistic.sae.formats.record import SaeRecord

Finder = Callable[[str, set[str]], FoundSae | None]

_LAYER_FOLDER = re.compile(r"(?:^|/)layer_(\d+)(?:_width_[^/]*)?(?:/|$)")
_SET_FILE = re.compile(re.escape(GEMMA_SCOPE_2_SET.weights).replace(r"\{\}", r"(\d+)"))
_CLT_FILE = re.compile(r"W_(enc|dec)_(\d+)\.safetensors")
_ONE_LAYER = re.compile(re.escape(CIRCUIT_TRACER.weights).replace(r"\{\}", r"(\d+)"))
_QWEN_LAYER = re.compile(r"layer_?(\d+)\.sae\.(?:pt|pth|safetensors)")
# Files of .pt families that someone wrote again as safetensors; other such files may be a model's.
_WRITTEN_AGAIN = re.compile(r".+-SAE-l\d+\.safetensors|layer_?\d+\.sae\.safetensors")


def saelens(name: str, known: set[str]) -> FoundSae | None:
    """`sae_weights.safetensors`, unless only the `config.json` of another tool is beside it."""
    folder, file = folder_of(name)
    if file != SAELENS.weights or _is_llamascopium(folder, known):
        return None
    files = tuple(joined(folder, one) for one in (SAELENS.config, file, SCALER_NAME))
    return FoundSae(SAELENS.format, folder, name, files, _in_folder("saelens", folder))


def llamascopium(name: str, known: set[str]) -> FoundSae | None:
    """`sae_weights.safetensors` beside `config.json`."""
    folder, file = folder_of(name)
    if file != LLAMASCOPIUM.weights or not _is_llamascopium(folder, known):
        return None
    files = (joined(folder, LLAMASCOPIUM.config), name)
    return FoundSae(LLAMASCOPIUM.format, folder, name, files, _in_folder("llamascopium", folder))


def _is_llamascopium(folder: str, known: set[str]) -> bool:
    return (
        joined(folder, LLAMASCOPIUM.config) in known and joined(folder, SAELENS.config) not in known
    )


def sparsify(name: str, known: set[str]) -> FoundSae | None:
    """`sae.safetensors`, with the configuration of its run in a folder above."""
    folder, file = folder_of(name)
    if file != SPARSIFY.weights:
        return None
    run = above(folder, SPARSIFY_RUN, known)

    def read(root: Path, place: str, _: str | None) -> "SaeRecord":
        from mi_crow.mechanistic.sae.formats.sparsify import read_sparsify

        return read_sparsify(root / folder, joined(place, folder), root / run if run else None)

    files = (joined(folder, SPARSIFY.config), name, *((run,) if run else ()))
    return FoundSae(SPARSIFY.format, folder, name, files, read)


def gemma_scope(name: str, known: set[str]) -> FoundSae | None:
    """`params.npz`."""
    folder, file = folder_of(name)
    if file != GEMMA_SCOPE.weights:
        return None

    def read(root: Path, place: str, _: str | None) -> "SaeRecord":
        from mi_crow.mechanistic.sae.formats.gemma_scope import read_gemma_scope

        return read_gemma_scope(root / name, joined(place, folder))

    return FoundSae(GEMMA_SCOPE.format, folder, name, (name,), read)


def gemma_scope_2(name: str, known: set[str]) -> FoundSae | None:
    """`params.safetensors`, with or without its `config.json`."""
    folder, file = folder_of(name)
    if file != GEMMA_SCOPE_2.weights:
        return None
    config, layer = joined(folder, GEMMA_SCOPE_2.config), _LAYER_FOLDER.search(folder)

    def read(root: Path, place: str, _: str | None) -> "SaeRecord":
        from mi_crow.mechanistic.sae.formats.gemma_scope_2 import read_gemma_scope_2

        described = root / config if config in known else None
        return read_gemma_scope_2(root / name, described, joined(place, folder))

    number = int(layer[1]) if layer is not None else None
    return FoundSae(GEMMA_SCOPE_2.format, folder, name, (name, config), read, number)


def dictionary_learning(name: str, known: set[str]) -> FoundSae | None:
    """`ae.pt`, or the same as `ae.safetensors`, beside `config.json`."""
    folder, file = folder_of(name)
    if file not in (DICTIONARY_LEARNING.weights, DICTIONARY_WEIGHTS):
        return None
    if file == DICTIONARY_WEIGHTS and joined(folder, DICTIONARY_LEARNING.weights) in known:
        return None
    config = joined(folder, DICTIONARY_LEARNING.config)

    def read(root: Path, _: str, __: str | None) -> "SaeRecord":
        from mi_crow.mechanistic.sae.formats.dictionary_learning import read_dictionary_learning

        return read_dictionary_learning(root / name, root / config)

    return FoundSae(DICTIONARY_LEARNING.format, folder, name, (config, name), read)


def llama_scope(name: str, known: set[str]) -> FoundSae | None:
    """`checkpoints/final.safetensors` below the folder of `hyperparams.json`."""
    if not name.endswith(LLAMA_SCOPE.weights):
        return None
    base = name.removesuffix(LLAMA_SCOPE.weights).rstrip("/")
    config = joined(base, LLAMA_SCOPE.config)
    if config not in known:
        return None
    return FoundSae(LLAMA_SCOPE.format, base, name, (config, name), _in_folder("llama_scope", base))


def circuit_tracer(name: str, known: set[str]) -> FoundSae | None:
    """`layer_<i>.safetensors` beside the `config.yaml` of all layers."""
    folder, file = folder_of(name)
    match, config = _ONE_LAYER.fullmatch(file), joined(folder, CIRCUIT_TRACER.config)
    if match is None or config not in known:
        return None
    layer = int(match[1])

    def read(root: Path, _: str, __: str | None) -> "SaeRecord":
        from mi_crow.mechanistic.sae.formats.circuit_tracer import read_transcoder

        return read_transcoder(root / name, root / config, layer)

    return FoundSae(CIRCUIT_TRACER.format, name, name, (config, name), read, layer)


def gemma_scope_2_set(name: str, known: set[str]) -> FoundSae | None:
    """All `params_layer_<i>.safetensors` of a folder, found by the first of them."""
    folder, file = folder_of(name)
    if _SET_FILE.fullmatch(file) is None:
        return None
    files = _alike(folder, _SET_FILE, known)
    config = joined(folder, GEMMA_SCOPE_2_SET.config)
    if name != files[0]:
        return None

    def read(root: Path, place: str, _: str | None) -> "CrossLayerRecord":
        from mi_crow.mechanistic.sae.formats.gemma_scope_2_set import read_gemma_scope_2_set

        described = root / config if config in known else None
        return read_gemma_scope_2_set(
            [root / one for one in files], described, joined(place, folder)
        )

    return FoundSae(GEMMA_SCOPE_2_SET.format, folder, name, (config, *files), read)


def circuit_tracer_clt(name: str, known: set[str]) -> FoundSae | None:
    """All `W_enc_<i>.safetensors` and `W_dec_<i>.safetensors` of a folder, by the first of them."""
    folder, file = folder_of(name)
    if _CLT_FILE.fullmatch(file) is None:
        return None
    files, config = _alike(folder, _CLT_FILE, known), joined(folder, CIRCUIT_TRACER_CLT.config)
    if name != files[0]:
        return None

    def read(root: Path, _: str, __: str | None) -> "CrossLayerRecord":
        from mi_crow.mechanistic.sae.formats.circuit_tracer_clt import read_clt

        return read_clt(root / folder, [folder_of(one)[1] for one in files])

    return FoundSae(CIRCUIT_TRACER_CLT.format, folder, name, (config, *files), read)


def _alike(folder: str, pattern: re.Pattern[str], known: set[str]) -> list[str]:
    """The files of a folder that are called alike, sorted by their number."""
    found = []
    for name in known:
        place, file = folder_of(name)
        if place == folder and (match := pattern.fullmatch(file)) is not None:
            found.append((int(match[match.lastindex or 0]), name))
    return [name for _, name in sorted(found)]


def torch_file(name: str, known: set[str], config: str | None = None) -> FoundSae | None:
    """A `.pt` or `.pth` file, or one written again as safetensors, with what may describe it;
    `config` is a `config.json` elsewhere."""
    folder, file = folder_of(name)
    if not name.endswith(TORCH_ENDINGS) and _WRITTEN_AGAIN.fullmatch(file) is None:
        return None
    if config is None and folder_of(folder)[1] == "checkpoints":
        config = above(folder, DICTIONARY_LEARNING.config, known)
    described = {
        KISSANE.format: f"{name.rpartition('.')[0]}{KISSANE.config}",
        APOLLO.format: joined(folder, APOLLO.config),
        TORCH.format: config or joined(folder, TORCH.config),
    }
    here = {kind: path for kind, path in described.items() if path in known}

    def read(root: Path, _: str, layer: str | None) -> "SaeRecord":
        from mi_crow.mechanistic.sae.formats.torch_files import read_torch_file

        return read_torch_file(
            root / name, {kind: root / path for kind, path in here.items()}, layer
        )

    match = _QWEN_LAYER.fullmatch(file)
    number = int(match[1]) if match is not None else None
    return FoundSae(TORCH.format, name, name, (*here.values(), name), read, number)


def opensae(name: str, known: set[str]) -> FoundSae | None:
    """`model.safetensors` beside `config.json`, which may also be a model."""
    folder, file = folder_of(name)
    config = joined(folder, OPENSAE.config)
    if file != OPENSAE.weights or config not in known:
        return None
    return FoundSae(OPENSAE.format, folder, name, (config, name), _in_folder("opensae", folder))


# By names that only one tool gives; then by names that others give too.
MARKED: tuple[Finder, ...] = (
    saelens,
    llamascopium,
    sparsify,
    gemma_scope,
    gemma_scope_2,
    dictionary_learning,
    llama_scope,
    circuit_tracer,
    gemma_scope_2_set,
    circuit_tracer_clt,
)
UNMARKED: tuple[Finder, ...] = (torch_file, opensae)


def _in_folder(
    module: str, folder: str
) -> "Callable[[Path, str, str | None], SaeRecord | CrossLayerRecord]":
    """What reads the folder by `read_<module>` of the format's module."""
    return partial(_read_folder, module, folder)


def _read_folder(
    module: str, folder: str, root: Path, _: str, __: str | None = None
) -> "SaeRecord | CrossLayerRecord":
    reader = import_module(f"mi_crow.mechanistic.sae.formats.{module}")
    return getattr(reader, f"read_{module}")(root / folder)
