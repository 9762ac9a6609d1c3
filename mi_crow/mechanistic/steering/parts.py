"""Loading what a stack refers to beside the open SAE: other SAEs, vectors, maxima."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mi_crow.errors import UserError
from mi_crow.mechanistic.sae.cross_layer.sae import CrossLayerSae
from mi_crow.mechanistic.sae.weights_hash import WeightsFile
from mi_crow.mechanistic.steering.fits import all_maxima, other_model, same_model
from mi_crow.mechanistic.steering.interventions import Intervention
from mi_crow.mechanistic.steering.loading import LoadedModel, LoadedSae, join
from mi_crow.mechanistic.steering.steer import SaeAt, SteeringParts, check_in_model
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.language_model import HookPoint, LanguageModel
    from mi_crow.mechanistic.sae.base import SparseAutoencoder
    from mi_crow.mechanistic.vectors.stored import SteeringVector


class LoadedParts:
    """The SAEs and vectors of a workspace that were used on one model so far, loaded.

    What was replaced on the disk is loaded anew.
    """

    def __init__(self, workspace: Workspace, lm: "LanguageModel") -> None:
        self._workspace, self._lm = workspace, lm
        self._saes: dict[str, LoadedSae] = {}
        self._vectors: dict[str, tuple[tuple[int, int], SteeringVector]] = {}
        self._held: dict[str, SteeringVector] = {}

    def hold(self, vector: "SteeringVector") -> None:
        """Makes a vector known that is in no file."""
        self._held[vector.name] = vector

    def parts(self, own: LoadedSae | LoadedModel, stack: Sequence[Intervention]) -> SteeringParts:
        """What `stack`, with its tags looked up, refers to on the model of `own`.

        Raises UserError for an SAE of another model or width, or of other weights than when its
        feature was chosen; NotFoundError for an SAE or a vector that is not there, and where an
        index is needed that is not built.
        """
        stack = [one for one in stack if one.enabled]
        maxima = all_maxima(self._workspace, own.sae_id, stack)
        if isinstance(own, LoadedSae):
            for one in stack:
                if one.sae in (None, own.sae_id):
                    one.check_weights(own.weights_hash)
        names = sorted({name for one in stack for name in one.saes if name != own.sae_id})
        others = {name: self.sae(name) for name in names}
        for one in stack:
            if one.sae in others:
                one.check_weights(others[one.sae].weights_hash)
        return SteeringParts(
            None if isinstance(own, LoadedModel) else at_its_layers(own, maxima.get(own.sae_id)),
            own.sae_id or "",
            {name: at_its_layers(one, maxima.get(name)) for name, one in others.items()},
            {name: self._vector(name) for name in sorted(vectors_of(stack))},
        )

    @property
    def versions(self) -> str:
        """Changes when something that is held is loaded anew."""
        saes = {name: one.weights for name, one in self._saes.items()}
        return f"{saes} { {name: version for name, (version, _) in self._vectors.items()} }"

    def saes(self, own: LoadedSae, sae_ids: Sequence[str] = ()) -> list[LoadedSae]:
        """The SAEs of these names, `own` without any. Raises like `sae`."""
        names = dict.fromkeys(sae_ids or [own.sae_id])
        return [own if name == own.sae_id else self.sae(name) for name in names]

    def sae(self, sae_id: str) -> LoadedSae:
        """An SAE of the workspace, read when first asked for. Raises NotFoundError, and UserError
        for one of another model."""
        weights = WeightsFile.of(self._workspace.sae_dir(sae_id))
        held = self._saes.get(sae_id)
        if held is None or held.weights != weights:
            from mi_crow.mechanistic.sae.formats.load import load_sae

            sae = load_sae(self._workspace.sae_dir(sae_id), self._lm.device)
            check_model(self._lm, f"SAE {sae_id!r}", sae)
            held = self._saes[sae_id] = join(sae_id, self._lm, sae, weights)
        return held

    def _vector(self, name: str) -> "SteeringVector":
        if name in self._held:
            return self._held[name]
        from mi_crow.mechanistic.vectors.stored import load_vector, vector_path

        found = vector_path(self._workspace, name).stat()
        version = (found.st_ino, found.st_mtime_ns)
        held = self._vectors.get(name)
        if held is None or held[0] != version:
            held = self._vectors[name] = (version, load_vector(self._workspace, name))
            made, lm = held[1].made, self._lm
            model, hashed = str(made.get("model_id") or ""), made.get("tokenizer_hash")
            if not same_model(lm.model_id, lm.tokenizer_hash, model, hashed):
                raise other_model(f"vector {name!r}", model, lm.model_id)
        return held[1]


def vectors_of(stack: Sequence[Intervention]) -> set[str]:
    """The vectors that interventions name."""
    targets = {one.aim.name for one in stack if one.aim.kind == "vector"}
    conditions = {one.condition.vector for one in stack if one.condition is not None}
    return targets | {name for name in conditions if name is not None}


def at_its_layers(loaded: LoadedSae, maxima: "dict[int, float] | None" = None) -> SaeAt:
    """An SAE where it reads and writes. Raises UserError for a transcoder that does not say which
    layer it predicts."""
    write = point_written(loaded.lm, loaded.sae, loaded.sae_id)
    at = SaeAt(loaded.sae, loaded.layer, write, maxima or {})
    if write is not None:
        check_in_model(loaded.lm, loaded.sae_id, at)
    return at


def point_written(lm: "LanguageModel", sae: "SparseAutoencoder", sae_id: str) -> "HookPoint | None":
    """The layer that a transcoder predicts; None for an SAE, which writes where it reads, and for
    one over several layers, which knows them itself."""
    from mi_crow.mechanistic.sae.targets import target_layer

    if not sae.transcodes or isinstance(sae, CrossLayerSae):
        return None
    target = target_layer(sae)
    if target is None:
        raise UserError(
            f"transcoder {sae_id!r} does not say which layer it predicts",
            hint="import it with its target layer",
        )
    return lm.layers.resolve(target)


def check_model(lm: "LanguageModel", what: str, sae: "SparseAutoencoder") -> None:
    """Raises UserError for an SAE of another model than `lm`."""
    metadata = sae.metadata
    own = lm.model_id, lm.tokenizer_hash
    if not same_model(*own, metadata.model_name or "", metadata.tokenizer_hash):
        raise other_model(what, metadata.model_name or "", lm.model_id)
