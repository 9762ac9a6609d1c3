"""The session's operations that explain: features of a text, of two texts or sets of texts, causes
of an answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mi_crow.mechanistic.explain.contrast import Report
    from mi_crow.mechanistic.steering.known import KnownFeatures
    from mi_crow.mechanistic.steering.loading import LoadedSae
    from mi_crow.mechanistic.steering.parts import LoadedParts

_OF_RUN = 200  # documents of a run on either side of a check: a sample


class Causes:
    """Answers questions about the loaded SAE, beside others of its model in `loaded_parts`."""

    def __init__(self, known: "KnownFeatures", loaded_parts: "LoadedParts") -> None:
        self._known, self._parts = known, loaded_parts

    def check(self, loaded: "LoadedSae", feature: int, words: Sequence[str]) -> dict[str, Any]:
        """Where a feature fires on texts, on the texts of files or on documents of its run, which
        are held against the others of the run, and where it does not."""
        from mi_crow.mechanistic.explain.checking import MOST_TEXTS, check_feature
        from mi_crow.mechanistic.vectors.texts import is_of_run, texts_to_check

        run_id, workspace = loaded.sae.metadata.run_id, self._known.workspace
        most = _OF_RUN if all(map(is_of_run, words)) else MOST_TEXTS // 2
        sides = texts_to_check(workspace, words, (), run_id, most, 0)
        return check_feature(loaded, feature, *sides).as_json()

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
        """See `steering.run.inspect_several`; those of several SAEs are under `saes`, what
        `inspect_vectors` gives under `vectors`."""
        from mi_crow.mechanistic.steering.ranking import ranking_of
        from mi_crow.mechanistic.steering.run import inspect_several, inspect_vectors

        ranking = ranking_of(order, max_density, named)
        chosen = self._parts.saes(loaded, saes)
        found = inspect_several(self._known, chosen, text, ranking=ranking, **asked)
        if vectors:
            how = {key: asked[key] for key in ("bos", "windows") if key in asked}
            activations = inspect_vectors(self._known.workspace, loaded, vectors, text, **how)
            found[0]["vectors"] = activations
        return found[0] if not saes else {**found[0], "saes": found}

    def compare(
        self,
        loaded: "LoadedSae",
        text: str,
        against: str,
        order: str | None = None,
        max_density: float | None = None,
        named: bool = False,
        **asked: Any,
    ) -> dict[str, Any]:
        """See `explain.two_texts.compare_texts`."""
        from mi_crow.mechanistic.explain.two_texts import compare_texts
        from mi_crow.mechanistic.steering.ranking import ranking_of

        ranking = ranking_of(order, max_density, named)
        return compare_texts(self._known, loaded, text, against, ranking=ranking, **asked)

    def contrast(
        self,
        loaded: "LoadedSae",
        texts: Sequence[str],
        against: Sequence[str],
        report: "Report | None" = None,
        **asked: Any,
    ) -> dict[str, Any]:
        """See `explain.two_sets.contrast_sets`; the sets are named as for `texts_of`."""
        from mi_crow.mechanistic.explain.two_sets import contrast_sets, sets_of

        run_id, seed = loaded.sae.metadata.run_id, int(asked.get("seed", 0))
        sets = sets_of(self._known.workspace, texts, against, run_id, seed=seed)
        return contrast_sets(self._known, loaded, *sets, report=report, **asked)

    def render(self, loaded: "LoadedSae", chat: str) -> dict[str, Any]:
        """A conversation, as `chat.read_conversation` reads it, through the model's template."""
        from mi_crow.language_model.chat import chat_text, read_conversation

        return {"text": chat_text(loaded.lm.tokenizer, read_conversation(chat))}

    def attribute(
        self, loaded: "LoadedSae", text: str, saes: Sequence[str] = (), **question: Any
    ) -> dict[str, Any]:
        """See `attribution.run.attribute_loaded`; `question` has the fields of its `Question`."""
        from mi_crow.mechanistic.attribution.question import Question
        from mi_crow.mechanistic.attribution.run import attribute_loaded

        chosen = self._parts.saes(loaded, saes)
        return attribute_loaded(self._known, chosen, text, Question(**question))

    def lens(
        self,
        loaded: "LoadedSae",
        text: str,
        top: int = 3,
        bos: str = "auto",
        windows: bool = False,
    ) -> dict[str, Any]:
        """See `attribution.lens.text_lens`."""
        from mi_crow.mechanistic.attribution.lens import text_lens
        from mi_crow.mechanistic.attribution.passage import passages_of

        passages = passages_of(loaded.lm, text, loaded.sae.metadata.bos(bos), windows)
        return text_lens(loaded.lm, passages, top)

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
        windows: bool = False,
    ) -> dict[str, Any]:
        """See `attribution.run.predict_without`."""
        from mi_crow.mechanistic.attribution.run import predict_without

        pairs = [(str(sae_id), int(feature)) for sae_id, feature in ablated]
        chosen = self._parts.saes(loaded, [sae_id for sae_id, _ in pairs])
        return predict_without(chosen, text, pairs, position, bos, windows)


EXPLAINING = ("inspect", "compare", "attribute", "predict", "lens", "patch", "render", "check")
"""The operations that answer at once; `contrast` tells how far it is."""
