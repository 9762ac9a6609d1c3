"""Names, top texts and manipulation of an SAE's latents, as the published guides call them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_crow.bounds import REAL
from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.concept_files import (
    NamedConcept,
    concepts_from,
    read_csv_concepts,
    read_json_concepts,
    write_top_texts_csv,
    write_top_texts_json,
)
from mi_crow.mechanistic.concepts.text_tracking import TextTracker

if TYPE_CHECKING:
    from mi_crow.mechanistic.sae.base import SparseAutoencoder


class AutoencoderConcepts:
    """Names, top texts and manipulation of one SAE's latents.

    Tracking and manipulation act while the SAE is attached (`lm.attach_sae(sae, layer)`).
    """

    def __init__(self, sae: "SparseAutoencoder") -> None:
        self._sae = sae
        self._scales: dict[int, float] = {}
        self.names: dict[int, list[NamedConcept]] = {}
        self.tracker: TextTracker | None = None

    def enable_text_tracking(self, top_k: int = 5) -> None:
        """Keeps the `top_k` texts of each latent from now on, starting afresh."""
        if top_k < 1:
            raise UserError(f"top_k must be at least 1, not {top_k}")
        self.tracker = TextTracker(self._sae.n_latents, top_k, self._sae.device)

    def disable_text_tracking(self) -> None:
        """Stops tracking and forgets what was tracked."""
        self.tracker = None

    def get_top_texts(self) -> dict[int, list[tuple[str, float]]]:
        """{neuron: [(text, activation)]}, strongest first.

        Raises UserError when tracking was never enabled.
        """
        if self.tracker is None:
            raise UserError(
                "texts are not tracked", hint="call sae.concepts.enable_text_tracking() first"
            )
        return self.tracker.top_texts()

    def export_top_texts_to_json(self, path: str | Path) -> Path:
        """Writes the top texts as JSON; returns the path."""
        write_top_texts_json(Path(path), self.get_top_texts())
        return Path(path)

    def export_top_texts_to_csv(self, path: str | Path) -> Path:
        """Writes the top texts as CSV; returns the path."""
        write_top_texts_csv(Path(path), self.get_top_texts())
        return Path(path)

    def load_concepts(self, concepts: Mapping[int, Any]) -> None:
        """Reads names from {feature: [{"name", "confidence"}]}."""
        self._name(concepts_from(concepts))

    def load_concepts_from_csv(self, path: str | Path) -> None:
        """Reads names from a CSV file (columns feature, name, confidence)."""
        self._name(read_csv_concepts(Path(path)))

    def load_concepts_from_json(self, path: str | Path) -> None:
        """Reads names from a JSON file {feature: [{"name", "confidence"}]}."""
        self._name(read_json_concepts(Path(path)))

    def manipulate_concept(self, neuron_idx: int, scale: float) -> None:
        """Multiplies a latent by `scale` wherever it fires: 1 changes nothing, 0 removes it.

        Raises UserError for a latent out of range, or a scale that is not a finite number.
        """
        self._check(neuron_idx)
        REAL.check(scale, "the value of an intervention")
        self._scales[neuron_idx] = scale

    def reset_manipulations(self) -> None:
        """Leaves every latent as it is again."""
        self._scales.clear()

    def get_manipulation_config(self) -> dict[int, float]:
        """{neuron: scale} of the latents that are manipulated."""
        return dict(self._scales)

    def _name(self, names: Mapping[int, list[NamedConcept]]) -> None:
        for feature in names:
            self._check(feature)
        self.names.update(names)

    def _check(self, latent: int) -> None:
        if not 0 <= latent < self._sae.n_latents:
            raise UserError(
                f"feature {latent} is out of range",
                hint=f"this SAE has features 0 to {self._sae.n_latents - 1}",
            )
