"""The session's operations that explain: features of a text, causes of an answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mi_crow.errors import UserError
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.mechanistic.steering.known import KnownFeatures
    from mi_crow.mechanistic.steering.loading import LoadedSae


class Causes:
    """What is kept between questions: the indexes that were opened, and SAEs beside the loaded one,
    as long as its model stays."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._held_known: KnownFeatures | None = None
        self._beside: dict[str, LoadedSae] = {}

    @property
    def known(self) -> "KnownFeatures":
        from mi_crow.mechanistic.steering.known import KnownFeatures

        if self._held_known is None:
            self._held_known = KnownFeatures(self._workspace)
        return self._held_known

    def saes(self, loaded: "LoadedSae", sae_ids: Sequence[str]) -> "list[LoadedSae]":
        """The SAEs of these names, the loaded one without any; those beside it are read when first
        asked for. Raises NotFoundError, UserError for one of another model."""
        self._beside = {name: one for name, one in self._beside.items() if one.lm is loaded.lm}
        return [
            loaded if name == loaded.sae_id else self._of_same_model(loaded, name)
            for name in dict.fromkeys(sae_ids or [loaded.sae_id])
        ]

    def _of_same_model(self, loaded: "LoadedSae", sae_id: str) -> "LoadedSae":
        from mi_crow.mechanistic.sae.weights_hash import WeightsFile
        from mi_crow.mechanistic.steering.loading import join, open_sae

        weights = WeightsFile.of(self._workspace.sae_dir(sae_id))
        found = self._beside.get(sae_id)
        if found is not None and found.weights == weights:
            return found
        sae, spec = open_sae(self._workspace, sae_id, str(loaded.lm.device))
        wanted = loaded.sae.metadata
        if (spec.model, spec.revision) != (wanted.model_name, wanted.revision):
            raise UserError(
                f"SAE {sae_id!r} reads {spec.model!r}, the model in memory is "
                f"{wanted.model_name!r}",
                hint="choose SAEs of one model",
            )
        self._beside[sae_id] = join(sae_id, loaded.lm, sae, weights)
        return self._beside[sae_id]

    def inspect(
        self,
        loaded: "LoadedSae",
        text: str,
        saes: Sequence[str] = (),
        order: str | None = None,
        max_density: float | None = None,
        named: bool = False,
        vectors: Sequence[str] = (),
        **asked: Any,
    ) -> dict[str, Any]:
        """See `steering.run.inspect_several`; those of several SAEs stand under `saes`, what
        `inspect_vectors` gives under `vectors`."""
        from mi_crow.mechanistic.steering.ranking import ranking_of
        from mi_crow.mechanistic.steering.run import inspect_several, inspect_vectors

        ranking = ranking_of(order, max_density, named)
        found = inspect_several(self.known, self.saes(loaded, saes), text, ranking=ranking, **asked)
        if vectors:
            how = {key: asked[key] for key in ("bos", "windows") if key in asked}
            lanes = inspect_vectors(self.known.workspace, loaded, vectors, text, **how)
            found[0]["vectors"] = lanes
        return found[0] if not saes else {**found[0], "saes": found}

    def attribute(
        self, loaded: "LoadedSae", text: str, saes: Sequence[str] = (), **question: Any
    ) -> dict[str, Any]:
        """See `attribution.run.attribute_loaded`; `question` has the fields of its `Question`."""
        from mi_crow.mechanistic.attribution.run import Question, attribute_loaded

        chosen = self.saes(loaded, saes)
        return attribute_loaded(self.known, chosen, text, Question(**question))

    def lens(
        self, loaded: "LoadedSae", text: str, top: int = 3, bos: str = "auto"
    ) -> dict[str, Any]:
        """See `attribution.lens.logit_lens`."""
        from mi_crow.mechanistic.attribution.lens import lens_json, logit_lens
        from mi_crow.mechanistic.attribution.run import encode_text

        encoding = encode_text(loaded, text, bos)
        return lens_json(loaded.lm, encoding, logit_lens(loaded.lm, encoding, top))

    def patch(
        self,
        loaded: "LoadedSae",
        clean: str,
        corrupted: str,
        features: bool = False,
        **asked: Any,
    ) -> dict[str, Any]:
        """See `attribution.two_prompts.patch_prompts`; with `features` what the SAE writes is
        restored, and not a module."""
        from mi_crow.mechanistic.attribution.two_prompts import patch_prompts

        bos = loaded.sae.metadata.bos(asked.pop("bos", "auto"))
        restored = loaded if features else None
        return patch_prompts(loaded.lm, clean, corrupted, loaded=restored, bos=bos, **asked)

    def predict(
        self,
        loaded: "LoadedSae",
        text: str,
        ablated: Sequence[tuple[str, int]] = (),
        position: int | None = None,
        bos: str = "auto",
    ) -> dict[str, Any]:
        """See `attribution.run.predict_without`."""
        from mi_crow.mechanistic.attribution.run import predict_without

        pairs = [(str(sae_id), int(feature)) for sae_id, feature in ablated]
        chosen = self.saes(loaded, [sae_id for sae_id, _ in pairs])
        return predict_without(chosen, text, pairs, position, bos)
