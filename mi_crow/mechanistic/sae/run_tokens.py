"""The tokens of a captured run that an SAE is trained on, and what they say about it."""

from dataclasses import dataclass
from typing import Any

from mi_crow.mechanistic.sae.base import SparseAutoencoder
from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.source import TokenSource
from mi_crow.mechanistic.sae.stored_layers import exact_hook_name, exact_point, stored_layer
from mi_crow.progress import Progress
from mi_crow.store.runs.manifest import LayerSpec, RunManifest
from mi_crow.store.runs.pair import PairReader
from mi_crow.store.runs.reader import RunReader
from mi_crow.store.workspace import Workspace


@dataclass(frozen=True)
class RunTokens:
    """One layer of a run; for transcoders with the layer to predict beside it."""

    manifest: RunManifest
    layer: LayerSpec
    target: LayerSpec | None
    source: TokenSource

    def metadata(self) -> SaeMetadata:
        """Where an SAE trained on these tokens belongs."""
        manifest, layer, target = self.manifest, self.layer, self.target
        other: dict[str, Any] = {}
        if target is not None:
            other = {
                "hook_name_out": exact_hook_name(manifest, target),
                "target_layer": target.signature,
            }
        return SaeMetadata(
            model_name=manifest.model_id,
            hook_name=exact_hook_name(manifest, layer),
            layer=layer.name,
            point=exact_point(manifest, layer),
            revision=manifest.revision,
            tokenizer_hash=manifest.tokenizer_hash,
            run_id=manifest.run_id or None,
            context_size=manifest.settings.get("context_length"),
            prepend_bos=manifest.settings.get("begins_with_bos"),
            other=other,
        )


def tell_other_model(sae: SparseAutoencoder, manifest: RunManifest, progress: Progress) -> None:
    """Says so when SAE and run name different models: names alone are no reason to refuse, since
    one model can be at several places."""
    name = sae.metadata.model_name
    if name and name != manifest.model_id:
        progress.log(
            f"run {manifest.run_id!r} is of model {manifest.model_id!r}, the SAE of {name!r}: what "
            "is found counts only if these are the same model"
        )


def tell_other_start(sae: SparseAutoencoder, manifest: RunManifest, progress: Progress) -> None:
    """Says so when the SAE's texts began with a BOS token and the run's do not, or the other way
    round."""
    wanted, found = sae.metadata.prepend_bos, manifest.settings.get("begins_with_bos")
    if wanted is None or found is None or wanted == found:
        return
    progress.log(
        f"the SAE is for texts {'with' if wanted else 'without'} a BOS token in front, run "
        f"{manifest.run_id!r} has them {'with' if found else 'without'} one: capture with "
        f"--bos {'yes' if wanted else 'no'}"
    )


def open_tokens(
    workspace: Workspace, run_id: str, layer: str, target_layer: str | None = None
) -> RunTokens:
    """Opens a layer, and the layer that a transcoder is to predict. Raises NotFoundError."""
    run_dir = workspace.run_dir(run_id)
    manifest = RunManifest.load(run_dir)
    spec = stored_layer(manifest, layer)
    if target_layer is not None:
        pair = PairReader(run_dir, spec.name, stored_layer(manifest, target_layer).name)
        return RunTokens(pair.first.manifest, pair.first.layer, pair.second.layer, pair)
    return RunTokens(manifest, spec, None, RunReader(run_dir, spec.name))
