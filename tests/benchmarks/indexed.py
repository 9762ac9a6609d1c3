"""A labelled run of 200k tokens of SmolLM2 with an SAE for it, for the benchmarks of the index.

Made once from the captured run (`captured.py`) and kept beside it in the user's cache.
"""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
from platformdirs import user_cache_dir

from mi_crow.mechanistic.sae.config import SaeTrainingConfig, TrainConfig
from mi_crow.mechanistic.sae.train.run import train_run
from mi_crow.store.runs.manifest import MANIFEST_NAME, PartSpec, RunManifest
from mi_crow.store.runs.parts import kept_lengths, write_part
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace
from tests.benchmarks.captured import smollm2_run

TOKENS, LATENTS, K = 200_000, 4608, 32
LABELS = tuple(f"topic-{number:02d}" for number in range(16))
RUN_ID, SAE_ID = "smollm2-15-200k", "smollm2-15-200k"
# Enough that the latents fire as those of a trained SAE do.
STEPS = 120


@dataclass(frozen=True)
class Indexed:
    """What is indexed, and where."""

    workspace: Workspace
    reader: RunReader
    sae_id: str

    def texts(self, count: int) -> list[str]:
        """The first documents."""
        found: list[str] = []
        for part in self.reader.parts():
            found += part.columns("text")["text"].to_pylist()
            if len(found) >= count:
                break
        return found[:count]


def indexed_run() -> Indexed:
    """The run and its SAE; both take some minutes once."""
    workspace = Workspace.open(Path(user_cache_dir("mi-crow")) / "benchmarks")
    workspace.ensure()
    folder = workspace.activations_dir / RUN_ID
    if not (folder / MANIFEST_NAME).is_file():
        _write_run(smollm2_run(), folder)
    layer = RunManifest.load(folder).layers[0].name
    if not (workspace.saes_dir / SAE_ID / "cfg.json").is_file():
        training = SaeTrainingConfig(steps=STEPS)
        train_run(
            workspace,
            TrainConfig(RUN_ID, layer, n_latents=LATENTS, k=K, training=training, name=SAE_ID),
        )
    return Indexed(workspace, RunReader(folder, layer), SAE_ID)


def _write_run(source: RunReader, folder: Path) -> None:
    """The first tokens of a run, its documents labelled at random: the work of an AUROC does not
    depend on what the labels say."""
    rng = random.Random(0)
    parts: list[PartSpec] = []
    room = TOKENS
    for part in source.parts():
        ends = kept_lengths(part.table).cumsum()
        count = int((ends <= room).sum())
        if not count:
            break
        rows, some = int(ends[count - 1]), part.table.slice(0, count)
        labels = pa.array([rng.choice(LABELS) for _ in range(count)])
        some = some.set_column(some.schema.get_field_index("label"), "label", labels)
        spec = PartSpec(0, len(parts), count, rows, shard=len(parts))
        write_part(folder, spec, some, {source.layer.name: part.stored(slice(0, rows))})
        parts.append(spec)
        room -= rows
    manifest = replace(source.manifest, run_id=RUN_ID, parts=parts)
    manifest.save(folder)
