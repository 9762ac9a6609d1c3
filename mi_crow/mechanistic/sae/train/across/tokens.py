"""The tokens of a training over several layers: which layers of which runs, side by side."""

from dataclasses import dataclass

from mi_crow.language_model.hook_points.names import number_of
from mi_crow.mechanistic.sae.config import CLT, TrainConfig
from mi_crow.mechanistic.sae.cross_layer.record import in_short
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.stored_layers import current_point, layers_together
from mi_crow.store.runs.joined import JoinedTokens
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace


@dataclass(frozen=True)
class LayersOfRun:
    """Several layers of a run, those that are read before those that are only predicted."""

    manifest: RunManifest
    reads: tuple[LayerSpec, ...]
    writes: tuple[LayerSpec, ...]  # one for each that is read; the same for a crosscoder
    source: JoinedTokens

    @property
    def layer(self) -> LayerSpec:
        """All that is read, as one: its widths are those of the widest."""
        name = in_short([self.name_of(spec) for spec in self.reads])
        return LayerSpec(name, name, max(spec.width for spec in self.reads))

    def name_of(self, spec: LayerSpec) -> str:
        """What a layer is called in the SAE's files."""
        return current_point(self.manifest, spec) or spec.name

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the blocks that are read."""
        return tuple(number_of(self.name_of(spec)) or 0 for spec in self.reads)

    def metadata(self, outlier_norm: float | None = None) -> SaeMetadata:
        """The metadata of an SAE trained on these tokens; tokens of which a layer has a norm above
        `outlier_norm` are outliers."""
        manifest = self.manifest
        return SaeMetadata(
            model_name=manifest.model_id,
            hook_name=self.layer.name,
            revision=manifest.revision,
            tokenizer_hash=manifest.tokenizer_hash,
            run_id=manifest.run_id or None,
            outlier_norm=outlier_norm,
            context_size=manifest.settings.get("context_length"),
            prepend_bos=manifest.settings.get("begins_with_bos"),
        )


def open_layers(workspace: Workspace, config: TrainConfig) -> LayersOfRun:
    """The layers of `config`, ascending by their blocks. Raises NotFoundError for a layer that the
    run lacks, UserError where they cannot be trained on together."""
    run_dir = workspace.run_dir(config.run_id)
    manifest = RunManifest.load(run_dir)
    reads, writes = layers_together(manifest, config.layers, transcodes=config.family == CLT)
    wanted = [*reads, *(writes if config.family == CLT else ())]
    source = JoinedTokens([RunReader(run_dir, spec.name) for spec in wanted], len(reads))
    return LayersOfRun(manifest, reads, writes, source)
