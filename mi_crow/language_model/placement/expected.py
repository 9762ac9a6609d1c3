"""The memory of a model's weights, told before they are loaded or downloaded."""

from dataclasses import replace

from mi_crow.errors import MiCrowError
from mi_crow.hub import hub_answers
from mi_crow.language_model.config import ModelSpec
from mi_crow.language_model.loading import RANDOM, locate, torch_device
from mi_crow.language_model.outline import place_of
from mi_crow.language_model.placement.devices import free_bytes
from mi_crow.language_model.placement.memory import (
    Expected,
    expected_weights,
    published_weights,
)
from mi_crow.store.settings import SPREAD


def memory_sentence(spec: ModelSpec) -> str | None:
    """What the weights of a model will take, before they are loaded: by its files, or by the hub
    where they are not here; None where neither says. Raises UserError for a device that is not
    there."""
    spec = replace(spec, model=spec.model.removeprefix(RANDOM))
    place = place_of(spec.model, spec.revision)
    if spec.gguf_file is not None or (place is not None and place.is_file()):
        return None
    device = torch_device(spec.device)
    found = None if place is None else expected_weights(place, spec.dtype, device.type)
    found = found or _published(spec, device.type)
    if found is None:
        return None
    if spec.device == SPREAD:
        return found.sentence("all devices")
    return found.sentence(str(device), free_bytes(device))


def _published(spec: ModelSpec, kind: str) -> Expected | None:
    """By the hub, without a word where it has no such model, or does not answer."""
    try:
        source = locate(spec)
    except MiCrowError:
        return None
    if source.local or source.gguf_file is not None or spec.offline or not hub_answers():
        return None
    return published_weights(source.place, spec.revision, spec.dtype, kind)
