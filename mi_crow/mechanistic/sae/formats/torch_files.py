"""Files whose names say little (`.pt`, `.pth`): what they hold says which family they are of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.sae.formats import (
    apollo,
    dictionary_learning,
    families,
    goodfire,
    kissane,
    openai,
    qwen_scope,
)
from mi_crow.mechanistic.sae.formats.marks import APOLLO, KISSANE, SAFETENSORS, TORCH
from mi_crow.mechanistic.sae.formats.record import SaeRecord
from mi_crow.mechanistic.sae.formats.tensor_files import listed, read_safetensors, read_torch
from mi_crow.mechanistic.sae.formats.yaml_file import read_yaml
from mi_crow.store.json_file import read_object


def _tensors(path: Path) -> Mapping[str, Any]:
    if path.suffix == SAFETENSORS:
        return {name: ref.read() for name, ref in read_safetensors(path).items()}
    return read_torch(path)


def read_torch_file(path: Path, configs: Mapping[str, Path], layer: str | None) -> SaeRecord:
    """The SAE of `layer` in `path`; `configs`, by format, are the files that may describe it.

    Raises UserError for tensors that are not known and for a file that could run code,
    NotFoundError or CorruptDataError when what describes it is missing or does not fit.
    """
    if (cfg := configs.get(TORCH.format)) is not None and "trainer" in read_object(
        cfg, unique_keys=True
    ):
        return dictionary_learning.read_dictionary_learning(path, cfg)
    found: Mapping[str, Any] = _tensors(path)
    names = set(found)
    if names & set(goodfire.tensor_names(goodfire.GOODFIRE)):
        return goodfire.read_linear(path, found, goodfire.GOODFIRE)
    if names == set(goodfire.tensor_names(goodfire.QRESEARCH)):
        return goodfire.read_linear(path, found, goodfire.QRESEARCH)
    if apollo.positions(found):
        if APOLLO.format not in configs:
            raise NotFoundError(f"{path} has no {APOLLO.config} beside it")
        return apollo.read_apollo(path, found, read_yaml(configs[APOLLO.format]), layer)
    if "W_enc" in names and KISSANE.format in configs:
        described = read_object(configs[KISSANE.format], unique_keys=True)
        return kissane.read_kissane(path, found, described)
    if "W_enc" in names and TORCH.format in configs:
        described = read_object(configs[TORCH.format], unique_keys=True)
        return qwen_scope.read_qwen_scope(path, found, described)
    if {"W_enc", "W_dec"} <= names:
        raise NotFoundError(
            f"{path} holds W_enc and W_dec, but no file beside it says what they compute",
            hint=f"put {TORCH.config} or {path.stem}{KISSANE.config} beside it",
        )
    if not names & openai.TENSORS:
        raise UserError(
            f"{path} holds {listed(sorted(names))}, which no known SAE consists of",
            hint=f"{path.name} is read if it holds the tensors of one: {families.READ}",
        )
    return openai.read_openai(path, found)
