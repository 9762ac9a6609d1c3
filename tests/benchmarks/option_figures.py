"""What an option of a training changes besides the FVU: cross-entropy, probes, absorption; and the
short trainings that go on from an SAE."""

from dataclasses import replace
from pathlib import Path

from mi_crow.errors import UserError
from mi_crow.language_model.language_model import LanguageModel
from mi_crow.mechanistic.sae import EvaluateConfig, SparseAutoencoder, TrainConfig, load_sae
from mi_crow.mechanistic.sae.config import (
    FINETUNE_STEPS,
    FULL_LENGTH,
    KL,
    SaeTrainingConfig,
    default_lr,
)
from mi_crow.mechanistic.sae.evaluation.documents import heldout_documents
from mi_crow.mechanistic.sae.evaluation.measures import model_of, probe_figures
from mi_crow.mechanistic.sae.evaluation.model_loss import model_loss
from mi_crow.mechanistic.sae.finetune.job import finetune_run
from mi_crow.mechanistic.sae.run_tokens import open_tokens
from mi_crow.mechanistic.sae.substitute import Substitution
from mi_crow.mechanistic.sae.train.run import train_run
from mi_crow.progress import NullProgress
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace
from tests.benchmarks.captured import OUTLIER_FACTOR
from tests.benchmarks.first_letters import FirstLetters

_PROGRESS = NullProgress()


class OptionFigures:
    """Measures SAEs of a run's layer in the run's model, and trains them further."""

    def __init__(self, reader: RunReader) -> None:
        self._reader, manifest = reader, reader.manifest
        self._outlier_norm = OUTLIER_FACTOR * reader.median_norm()
        self._lm: LanguageModel = model_of(manifest, EvaluateConfig("", device="cpu"))
        self._documents = heldout_documents(reader, EvaluateConfig("").documents, 0)
        vocabulary = self._lm.tokenizer
        self._letters = FirstLetters.of(
            reader, lambda one: vocabulary.convert_ids_to_tokens(one), self._outlier_norm
        )
        self._workspace = Workspace.open(reader.run_dir.parent.parent)
        self._metadata = replace(
            open_tokens(self._workspace, manifest.run_id, reader.layer.name).metadata(),
            outlier_norm=self._outlier_norm,
        )

    def measure(self, sae: SparseAutoencoder) -> dict[str, float]:
        """CE added on held-out documents, absorption of first letters, and where documents have
        labels the held-out accuracy of probes on 1 and 5 latents."""
        sae.metadata = self._metadata
        point = self._lm.layers.resolve(self._reader.layer.name)
        loss = model_loss(
            Substitution(self._lm, sae, point, point), None, self._documents, _PROGRESS
        )
        letters = self._letters.absorption(sae)
        probes = probe_figures(sae, self._reader, 0, _PROGRESS)
        accuracy = probes.get("latents_accuracy", {})
        return {
            "ce_added": loss.reconstructed - loss.original,
            "kl": loss.kl,
            "absorbed": letters.absorbed,
            "letters_f1": letters.f1,
            **{f"probe_{k}": accuracy[k] for k in ("1", "5") if k in accuracy},
        }

    def trained_on(
        self, sae: SparseAutoencoder, finetune: str, batch_size: int, seed: int, folder: Path
    ) -> SparseAutoencoder:
        """The SAE after the steps of a finetune: with `kl` one, else the same steps, learning rate
        and decay on the reconstruction alone."""
        start = folder / "start"
        sae.metadata = self._metadata
        sae.save(start)
        training = SaeTrainingConfig(
            steps=FINETUNE_STEPS,
            batch_size=batch_size,
            seed=seed,
            lr=default_lr(sae.n_latents, FULL_LENGTH),
            decay_share=1.0,
        )
        config = TrainConfig(
            self._reader.manifest.run_id,
            self._reader.layer.name,
            init=str(start),
            finetune=finetune,
            training=training,
            device="cpu",
        )
        out = folder / finetune
        out.mkdir()
        (finetune_run if finetune == KL else train_run)(self._workspace, config, _PROGRESS, out)
        trained = load_sae(out)
        if not isinstance(trained, SparseAutoencoder):
            raise UserError(f"{out} holds an SAE of several layers")
        return trained
