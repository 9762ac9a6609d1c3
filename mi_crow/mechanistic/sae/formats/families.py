"""Published families of SAEs that this version does not read, recognised by their file names.

Someone who brings one is told which family it is, rather than that there is no SAE or that a file
is invalid. Layouts: the repositories of each family on the Hugging Face hub.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from mi_crow.errors import UserError

READ = (
    "SAELens, sparsify, Gemma Scope 1 and 2, dictionary_learning, Llama Scope, Llamascopium, "
    "circuit-tracer, Qwen-Scope, Goodfire, qresearch, OpenSAE, Kissane et al., "
    "Apollo e2e_sae and OpenAI's sparse_autoencoder"
)


@dataclass(frozen=True)
class Family:
    """One family: its name, and the names of its files."""

    name: str
    weights: re.Pattern[str]  # a file, by its path from the root
    beside: str = ""  # a file that must be in the same folder; '' for none


def _family(name: str, weights: str, beside: str = "") -> Family:
    return Family(name, re.compile(weights), beside)


_FAMILIES = (
    _family("a temporal SAE", r"(?:.*/)?latest_ckpt\.safetensors", beside="conf.yaml"),
    _family(
        "an SAE of SAELens cut into several files",
        r"(?:.*/)?sae_weights-\d+-of-\d+\.safetensors",
    ),
)


def family_of(name: str, known: Collection[str]) -> str:
    """The family that the file `name` belongs to, '' for none; `known` are all files that exist."""
    folder = name.rpartition("/")[0]
    for family in _FAMILIES:
        beside = f"{folder}/{family.beside}" if folder else family.beside
        if family.weights.fullmatch(name) and (not family.beside or beside in known):
            return family.name
    return ""


def refuse_family(names: Collection[str], root: str, place: str, known: Collection[str]) -> None:
    """Raises UserError when one of the files `names` is of a known family that cannot be read.

    `known` are these files and those beside them; `root` is the path that all are relative to.
    """
    # The name of the given folder itself may identify the family.
    whole = {f"{root.strip('/')}/{one}" for one in known}
    for name in sorted(names):
        family = family_of(f"{root.strip('/')}/{name}", whole)
        if family:
            raise UserError(
                f"{place!r} holds {family}, which this version does not read",
                hint=f"it reads files of {READ}",
            )
