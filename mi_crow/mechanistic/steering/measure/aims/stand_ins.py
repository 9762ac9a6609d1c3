"""What stands in for vectors and neurons in a control: random directions, and other neurons."""

import hashlib
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.loading import LoadedModel, LoadedSae
from mi_crow.mechanistic.steering.parts import LoadedParts
from mi_crow.mechanistic.steering.targets import Target
from mi_crow.mechanistic.vectors.stored import SteeringVector

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel


def stand_ins(
    parts: LoadedParts,
    own: LoadedSae | LoadedModel,
    stack: Sequence[Intervention],
    seed: int,
) -> dict[str, str]:
    """The target that stands in for each vector and neuron that `stack` changes.

    For a vector it is one with random directions of the same norms at the same layers, and with the
    same figures, so that every unit means the same amount; `parts` holds it from now on. For a
    neuron it is another one of its layer at random, none twice. A whole layer has no other like it.
    """
    found: dict[str, str] = {}
    vectors = parts.parts(own, stack).vectors
    aims = dict.fromkeys(one.aim for one in stack if one.enabled)
    taken = {aim for aim in aims if aim.kind == "neuron"}
    for aim in aims:
        if aim.kind == "vector":
            other = _random_like(vectors[aim.name], seed)
            parts.hold(other)
            found[aim.text] = Target("vector", name=other.name).text
        elif aim.kind == "neuron":
            neuron = _other_neuron(own.lm, aim, taken, seed)
            if neuron is not None:
                taken.add(neuron)
                found[aim.text] = neuron.text
    return found


def _random_like(vector: SteeringVector, seed: int) -> SteeringVector:
    """A vector with the norms of this one, in directions of their own at every layer."""
    key = hashlib.sha256(f"{seed} {vector.name}".encode())
    generator = torch.Generator().manual_seed(int.from_bytes(key.digest()[:7], "big"))
    directions = {}
    for point, one in vector.directions.items():
        drawn = torch.randn(len(one), generator=generator)
        directions[point] = drawn * (one.float().cpu().norm() / drawn.norm())
    return SteeringVector(f"random-{key.hexdigest()[:16]}", directions, vector.made)


def _other_neuron(lm: "LanguageModel", aim: Target, taken: set[Target], seed: int) -> Target | None:
    """A neuron of the layer that is not taken; None without any."""
    width = lm.layers.width(lm.layers.resolve(aim.name))
    used = {one.neuron for one in taken if one.name == aim.name}
    free = [number for number in range(width) if number not in used]
    if not free:
        return None
    return Target("neuron", name=aim.name, neuron=random.Random(f"{seed} {aim.text}").choice(free))
