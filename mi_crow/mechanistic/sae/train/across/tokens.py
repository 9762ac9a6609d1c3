"""The tokens of a training over several layers: which layers of which runs, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from mi_crow.errors import UserError
from mi_crow.language_model.hook_points.names import number_of
from mi_crow.mechanistic.sae.config import CLT, TrainConfig
from mi_crow.mechanistic.sae.cross_layer.record import ROLES, ModelRead, in_short
from mi_crow.mechanistic.sae.cross_layer.two_runs import check_same_tokens
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.source import SideBySide
from mi_crow.mechanistic.sae.stored_layers import current_point, layers_together
from mi_crow.store.runs.joined import JoinedTokens
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace


@dataclass(frozen=True)
class LayersOfRun:
    """Several layers of a run, or of the running model, those that are read before those that are
    only predicted."""

    manifest: RunManifest
    reads: tuple[LayerSpec, ...]
    writes: tuple[LayerSpec, ...]  # one for each that is read; the same for a crosscoder
    source: SideBySide
    base: RunManifest | None = None  # the first half of `reads` is of this run, where there is one

    @property
    def roles(self) -> tuple[str, ...]:
        """For each layer that is read the model it is of: '' unless there are two."""
        half = len(self.reads) // 2
        if self.base is None:
            return ("",) * len(self.reads)
        return tuple(role for role in ROLES for _ in range(half))

    @property
    def models(self) -> tuple[ModelRead, ...]:
        """Both models, where there are two."""
        both = zip(ROLES, (self.base, self.manifest), strict=True)
        return tuple(
            ModelRead(role, run.model_id, run.revision, run.run_id or None)
            for role, run in both
            if run is not None and self.base is not None
        )

    @property
    def layer(self) -> LayerSpec:
        """All that is read, as one: its widths are those of the widest."""
        name = in_short([*dict.fromkeys(self.name_of(spec) for spec in self.reads)])
        return LayerSpec(name, name, max(spec.width for spec in self.reads))

    def name_of(self, spec: LayerSpec) -> str:
        """What a layer is called in the SAE's files."""
        return current_point(self.manifest, spec) or spec.name

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the blocks that are read; of two models, the places of the inputs."""
        if self.base is not None:
            return tuple(range(len(self.reads)))
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
            run_id=(self.base or manifest).run_id or None,
            outlier_norm=outlier_norm,
            context_size=manifest.settings.get("context_length"),
            prepend_bos=manifest.settings.get("begins_with_bos"),
        )


def open_layers(workspace: Workspace, config: TrainConfig) -> LayersOfRun:
    """The layers of `config`, ascending by their blocks. Raises NotFoundError for a layer that the
    run lacks, UserError where they cannot be trained on together."""
    if config.tuned_run is not None:
        return open_models(workspace, config.run_id, config.tuned_run, config.layers)
    run_dir = workspace.run_dir(config.run_id)
    manifest = RunManifest.load(run_dir)
    reads, writes = layers_together(manifest, config.layers, transcodes=config.family == CLT)
    wanted = [*reads, *(writes if config.family == CLT else ())]
    source = JoinedTokens([RunReader(run_dir, spec.name) for spec in wanted], len(reads))
    return LayersOfRun(manifest, reads, writes, source)


def open_models(
    workspace: Workspace, base_run: str, tuned_run: str, layers: Sequence[str]
) -> LayersOfRun:
    """The same layers of two runs, of a base model and of one made from it, over the same texts.

    Raises NotFoundError for a layer that one of them lacks, UserError for other tokens.
    """
    runs = [workspace.run_dir(run_id) for run_id in (base_run, tuned_run)]
    base, tuned = (RunManifest.load(run) for run in runs)
    check_same_tokens(runs, base, tuned)
    reads = [layers_together(manifest, layers, transcodes=False)[0] for manifest in (base, tuned)]
    check_same_widths((base, tuned), reads)
    readers = [
        RunReader(run, spec.name) for run, own in zip(runs, reads, strict=True) for spec in own
    ]
    both = (*reads[0], *reads[1])
    return LayersOfRun(tuned, both, both, JoinedTokens(readers), base)


def check_same_widths(
    manifests: Sequence[RunManifest], reads: Sequence[Sequence[LayerSpec]]
) -> None:
    """Raises UserError for layers of two models that have different widths."""
    base, tuned = (
        f"run {one.run_id!r}" if one.run_id else f"model {one.model_id!r}" for one in manifests
    )
    for first, second in zip(*reads, strict=True):
        if first.width != second.width:
            raise UserError(
                f"layer {first.point!r} has width {first.width} in {base}, {second.width} in "
                f"{tuned}",
                hint="compare a model with one made from it",
            )
