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


NO_RULE_OF_TOKENS = "its latents depend on earlier tokens, so it cannot be computed token by token"


@dataclass(frozen=True)
class Family:
    """One family: its name, and the names of its files."""

    name: str
    weights: re.Pattern[str]  # a file, by its path from the root
    beside: str = ""  # a file that must be in the same folder; '' for none
    without: str = ""  # a file that must not be there
    reason: str = "which this version does not read"
    hint: str = f"it reads files of {READ}"


_FAMILIES = (
    Family(
        "a temporal SAE",
        re.compile(r"(?:.*/)?latest_ckpt\.safetensors"),
        beside="conf.yaml",
        reason="which this version does not read: " + NO_RULE_OF_TOKENS,
    ),
    Family(
        "transcoders of circuit-tracer",
        re.compile(r"(?:.*/)?(?:layer_\d+|W_(?:enc|dec)_\d+)\.safetensors"),
        without="config.yaml",
        reason="without the config.yaml that names their hook points",
        hint="put config.yaml beside them",
    ),
)


def family_of(name: str, known: Collection[str]) -> Family | None:
    """The family that the file `name` belongs to; `known` are all files that exist."""
    folder = name.rpartition("/")[0]
    for family in _FAMILIES:
        beside, without = (
            f"{folder}/{file}" if folder and file else file
            for file in (family.beside, family.without)
        )
        if (
            family.weights.fullmatch(name)
            and (not beside or beside in known)
            and (not without or without not in known)
        ):
            return family
    return None


def refuse_family(names: Collection[str], root: str, place: str, known: Collection[str]) -> None:
    """Raises UserError when one of the files `names` is of a known family that cannot be read.

    `known` are these files and those beside them; `root` is the path that all are relative to.
    """
    # The name of the given folder itself may identify the family.
    whole = {f"{root.strip('/')}/{one}" for one in known}
    for name in sorted(names):
        family = family_of(f"{root.strip('/')}/{name}", whole)
        if family is not None:
            raise UserError(f"{place!r} holds {family.name}, {family.reason}", hint=family.hint)
