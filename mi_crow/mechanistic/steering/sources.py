"""What interventions read and write: an SAE, a vector or single neurons of a layer.

Each is a set of directions with an activation along each: of an SAE the decoder rows and latents;
of a vector v itself and the projection x.v / |v|^2, so that v times it is x's part along v; of
neurons the coordinate axes and the coordinates.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mi_crow.errors import UserError
from mi_crow.hooks import Controller
from mi_crow.mechanistic.sae.outputs import activations_of
from mi_crow.mechanistic.sae.rules.some_latents import SomeLatents

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint
    from mi_crow.mechanistic.sae.base import SparseAutoencoder
    from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
    from mi_crow.mechanistic.sae.cross_layer.shared import SharedCrosscoder


Activations = Callable[[Tensor], Tensor]
"""How active some directions are on x [..., d]: [..., f] fp32."""


class Place:
    """A hook point whose activations are needed later in a pass."""

    def __init__(self, read: "HookPoint") -> None:
        self.read: HookPoint = read
        self.seen: Tensor | None = None  # what it was in the running pass, where that is kept


class ReadActivations(Controller):
    """Keeps what a source reads for hooks that run later in the same pass."""

    def __init__(self, source: Place) -> None:
        super().__init__()
        self._source = source

    def not_captured(self, rows: int) -> str:
        return ""

    @torch.no_grad()
    def modify_activations(self, module: Any, inputs: Tensor | None, output: Tensor | None) -> Any:
        x = output if output is not None else inputs
        # A copy, since some blocks add to a sub-layer's output in place.
        self._source.seen = None if x is None else x.detach().clone()


def kept(source: Place, what: str, like: Tensor) -> Tensor:
    """What `source` read in the running pass, for tokens `like` [..., d]. Raises UserError where
    its layer comes later."""
    if source.seen is None or source.seen.shape[:-1] != like.shape[:-1]:
        raise UserError(
            f"{what} reads {source.read.point}, which the model reaches after the layer that is "
            "changed",
            hint="take one of the same layer or an earlier one",
        )
    return source.seen


class Source(Place, ABC):
    """Directions at a layer. `read` is where activations are taken, `write` where they are changed:
    another layer for a transcoder."""

    name: str  # in sentences: "SAE 'a'", "vector 'calm'"
    write: "HookPoint"
    outlier_norm: float | None = None  # of the tokens at `read`; above it they stay as they are
    also: tuple[Place, ...] = ()  # earlier layers that activations depend on

    def __init__(self, read: "HookPoint") -> None:
        super().__init__(read)

    @property
    @abstractmethod
    def count(self) -> int:
        """How many directions there are."""

    @abstractmethod
    def rows(self, numbers: Sequence[int]) -> Tensor:
        """What one unit of each adds: [f, d] fp32."""

    @abstractmethod
    def activations(self, numbers: Sequence[int]) -> Activations:
        """What tells how active these directions are; made once, called in every pass."""

    def why_varying(self, activations: Activations, rows: int) -> str:
        """Why `activations` of one token of `rows` texts take other operations at each token;
        empty where they do not, but on a CPU."""
        return ""

    def units(self, x: Tensor) -> Tensor | float:
        """How often its row one unit of an activation adds to x [..., d]: 1, or [..., 1]."""
        return 1.0

    def maximum(self, number: int) -> float | None:
        """The greatest activation that is known."""
        return None

    def check(self, number: int, target: str) -> None:
        """Raises UserError for a number that it does not have."""
        if not 0 <= number < self.count:
            raise UserError(
                f"{target!r} is not a feature of {self.name}",
                hint=f"it has features 0 to {self.count - 1}",
            )

    def required_maximum(self, number: int) -> float:
        """The greatest activation. Raises UserError where it is not known."""
        found = self.maximum(number)
        if not found:
            raise UserError(
                f"{self.name} has no known maximum", hint="use latent or norm, without feedback"
            )
        return found


class SaeSource(Source):
    """The features of an SAE, or of a transcoder."""

    def __init__(
        self,
        sae: "SparseAutoencoder",
        read: "HookPoint",
        write: "HookPoint | None" = None,
        maxima: Mapping[int, float] | None = None,
        name: str = "this SAE",
    ) -> None:
        super().__init__(read)
        self.sae: SparseAutoencoder = sae
        self.write: HookPoint = write or read
        self.name: str = name
        self.outlier_norm: float | None = sae.metadata.outlier_norm
        self._maxima = dict(maxima or {})

    @property
    def count(self) -> int:
        return self.sae.n_latents

    def rows(self, numbers: Sequence[int]) -> Tensor:
        return self.sae.decoder_rows.detach()[list(numbers)].float()

    def activations(self, numbers: Sequence[int]) -> Activations:
        return SomeLatents(self.sae, numbers)

    def why_varying(self, activations: Activations, rows: int) -> str:
        if isinstance(activations, SomeLatents) and activations.are_fixed(rows):
            return ""
        return "how active its features are depends on all others"

    def units(self, x: Tensor) -> Tensor | float:
        return self.sae.latent_units(x.float())

    def maximum(self, number: int) -> float | None:
        return self._maxima.get(number)

    def required_maximum(self, number: int) -> float:
        found = self.maximum(number)
        if not found:
            raise UserError(
                f"feature {number} has no known maximum",
                hint="build the index (mi-crow index), or give the strength in latent units, "
                "without feedback",
            )
        return found


def layer_activations(sae: "CrossLayerSae", x: Tensor, number: int, features: Tensor) -> Tensor:
    """The features' activations on x [..., d] of layer `number`: [..., f], zeros for those of other
    layers."""
    own = features - sae.first_latents[number]
    latents = sae.encode_layers({number: x})[number]
    return activations_of(latents, torch.where(own >= 0, own, -1)).float()


class LayerOfFeatures(SaeSource):
    """The features of one layer, as they write to one layer, the same or a later one. Strengths in
    units of the token's norm are measured at each layer that is written to."""

    def __init__(
        self,
        sae: "CrossLayerSae",
        layers: "tuple[tuple[int, HookPoint], tuple[int, HookPoint]]",
        maxima: Mapping[int, float],
        name: str,
    ) -> None:
        """`layers`: the number and the hook point of the layer read, and of the one written to."""
        (self._number, read), (self._to, write) = layers
        super().__init__(sae, read, write, maxima, name)
        self._across = sae

    def rows(self, numbers: Sequence[int]) -> Tensor:
        return self._across.rows_into(numbers, self._number, self._to)

    def activations(self, numbers: Sequence[int]) -> Activations:
        features = torch.tensor(numbers, dtype=torch.int64, device=self._across.device)
        return lambda x: layer_activations(self._across, x, self._number, features)


class SharedFeatures(SaeSource):
    """Features that read several layers at once, as they write to one of these. How active they are
    is known at the last layer."""

    def __init__(
        self,
        sae: "SharedCrosscoder",
        points: "Mapping[int, HookPoint]",
        to: int,
        maxima: Mapping[int, float],
        name: str,
    ) -> None:
        """`points`: of all layers, by number; `to`: the number of the one that is written to."""
        super().__init__(sae, points[to], None, maxima, name)
        self._to, self._across = to, sae
        if to == sae.last and len(points) == len(sae.layer_numbers):
            self.also: tuple[Place, ...] = tuple(
                Place(point) for number, point in points.items() if number != to
            )

    def rows(self, numbers: Sequence[int]) -> Tensor:
        return self._across.rows_into(numbers, self._across.last, self._to)

    def activations(self, numbers: Sequence[int]) -> Activations:
        """Of x at the last layer."""
        features = torch.tensor(numbers, dtype=torch.int64, device=self._across.device)

        def found(x: Tensor) -> Tensor:
            before = [place.seen for place in self.also if place.seen is not None]
            latents = self._across.encode_sparse(torch.cat([*before, x], dim=-1))
            return activations_of(latents, features).float()

        return found


class VectorSource(Source):
    """One vector [d] at one layer."""

    def __init__(
        self,
        vector: Tensor,
        point: "HookPoint",
        maximum: float | None,
        outlier_norm: float | None,
        name: str,
    ) -> None:
        super().__init__(point)
        self._vector = vector.float()
        self._square = float(self._vector.square().sum())
        self.write: HookPoint = point
        self.name: str = name
        self.outlier_norm: float | None = outlier_norm
        self._maximum = maximum

    @property
    def count(self) -> int:
        return 1

    def rows(self, numbers: Sequence[int]) -> Tensor:
        return self._vector[None]

    def activations(self, numbers: Sequence[int]) -> Activations:
        return lambda x: ((x.float() @ self._vector) / self._square)[..., None]

    def maximum(self, number: int) -> float | None:
        return self._maximum


class NeuronSource(Source):
    """The coordinates of a layer's activation."""

    def __init__(
        self, width: int, point: "HookPoint", outlier_norm: float | None, device: torch.device
    ) -> None:
        super().__init__(point)
        self._width, self._device = width, device
        self.write: HookPoint = point
        self.name: str = f"layer {point.name!r}"
        self.outlier_norm: float | None = outlier_norm

    @property
    def count(self) -> int:
        return self._width

    def rows(self, numbers: Sequence[int]) -> Tensor:
        axes = torch.zeros(len(numbers), self._width, device=self._device)
        axes[range(len(numbers)), list(numbers)] = 1.0
        return axes

    def activations(self, numbers: Sequence[int]) -> Activations:
        index = torch.tensor(numbers, dtype=torch.int64, device=self._device)
        return lambda x: x.index_select(-1, index).float()

    def check(self, number: int, target: str) -> None:
        if not 0 <= number < self.count:
            raise UserError(
                f"{target!r} is not a neuron of {self.name}",
                hint=f"it has neurons 0 to {self.count - 1}",
            )
