"""Recognising SAEs and their formats by file names, and choosing one of several.

Torch-free: what reads an SAE is imported when it is read.
"""

from collections.abc import Iterable, Sequence

from mi_crow.errors import NotFoundError, UserError
from mi_crow.language_model.hook_points.names import number_of
from mi_crow.mechanistic.sae.formats.families import READ, family_of
from mi_crow.mechanistic.sae.formats.finders import MARKED, UNMARKED, opensae, torch_file
from mi_crow.mechanistic.sae.formats.found import FoundSae, above, block_number, folder_of
from mi_crow.mechanistic.sae.formats.marks import DICTIONARY_LEARNING, SAELENS
from mi_crow.mechanistic.sae.formats.sharded import cut_files, whole_name, with_parts
from mi_crow.mechanistic.sae.hook_names import point_of

_LISTED = 12  # SAEs that an error lists


def find_saes(names: Iterable[str]) -> list[FoundSae]:
    """The SAEs among files, which are named relative to one root with `/`, sorted by name."""
    there = set(names)
    cut = cut_files(there)
    known = there | cut.keys()
    found = [one for name in sorted(known) if (one := _marked(name, known)) is not None]
    if found:
        return [with_parts(one, cut) for one in found]
    # Trainers of other tools write .pt files too, and OpenSAE's have the names of models.
    for find in UNMARKED:
        found = [
            one
            for name in sorted(known)
            if not family_of(name, known) and (one := find(name, known)) is not None
        ]
        if found:
            return [with_parts(one, cut) for one in found]
    return []


def choose(found: Sequence[FoundSae], layer: str | None, place: str) -> FoundSae:
    """The SAE that the user means; `place` is where they were found.

    Raises NotFoundError when there is none, or none of `layer`, and UserError listing them when
    several fit.
    """
    if not found:
        raise NotFoundError(
            f"no SAE at {place!r}",
            hint=f"give a folder that holds {SAELENS.config} and its weights, or files of {READ}",
        )
    if len(found) == 1:
        return found[0]
    matching = [one for one in found if layer is not None and _is_of(one, layer)]
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


def names_layer(found: FoundSae, layer: str) -> bool:
    """Whether `layer` only chooses this SAE among others and does not say which hook point it is
    for."""
    if found.number is not None and block_number(layer) == found.number:
        return True
    return not point_of(layer) and (found.label == layer or layer in found.label.split("/"))


def _is_of(found: FoundSae, layer: str) -> bool:
    """Whether the name of an SAE's folder says that it is of `layer`."""
    label = found.label
    if label == layer:
        return True
    if found.number is not None:
        number = block_number(layer)
        return found.number == (number_of(point_of(layer)) if number is None else number)
    parts = label.split("/")
    points = {point_of(part.replace("layer_", "layers.")) for part in parts} - {""}
    # A folder named after a module holds its output; the user may mean what the module adds.
    return layer in parts or _sublayer(point_of(layer)) in {_sublayer(point) for point in points}


def _sublayer(point: str) -> str:
    return point.replace("_raw.", "_out.")


def _marked(name: str, known: set[str]) -> FoundSae | None:
    """The SAE whose weights are in the file `name`, if its name shows that."""
    if family_of(name, known):
        return None
    return next((found for find in MARKED if (found := find(name, known)) is not None), None)


def one_file(name: str, known: set[str]) -> FoundSae | None:
    """The SAE in the file `name`, which the user gave: also a checkpoint that `find_saes` would not
    look for. None when the name is of no known format."""
    cut = cut_files(known)
    name, known = whole_name(name), known | cut.keys()
    found = _marked(name, known)
    if found is None and not family_of(name, known):
        config = above(folder_of(name)[0], DICTIONARY_LEARNING.config, known)
        found = torch_file(name, known, config) or opensae(name, known)
    return with_parts(found, cut) if found is not None else None
