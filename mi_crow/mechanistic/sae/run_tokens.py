"""The tokens that an SAE is trained on, and the metadata it gets from them."""

from dataclasses import dataclass
from typing import Any

from mi_crow.mechanistic.sae.metadata import SaeMetadata
from mi_crow.mechanistic.sae.source import TokenSource
from mi_crow.mechanistic.sae.stored_layers import current_hook_name, current_point, stored_layer
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

    def widths(self) -> list[tuple[str, int]]:
        """Name and width of the layer that an SAE reads and of the one that it writes."""
        return [(spec.name, spec.width) for spec in (self.layer, self.target or self.layer)]

    def metadata(self) -> SaeMetadata:
        """The metadata of an SAE trained on these tokens."""
        manifest, layer, target = self.manifest, self.layer, self.target
        other: dict[str, Any] = {}
        if target is not None:
            other = {
                "hook_name_out": current_hook_name(manifest, target),
                "target_layer": target.signature,
            }
        return SaeMetadata(
            model_name=manifest.model_id,
            hook_name=current_hook_name(manifest, layer),
            layer=layer.name,
            point=current_point(manifest, layer),
            revision=manifest.revision,
            tokenizer_hash=manifest.tokenizer_hash,
            run_id=manifest.run_id or None,
            context_size=manifest.settings.get("context_length"),
            prepend_bos=manifest.settings.get("begins_with_bos"),
            other=other,
        )


def open_tokens(
    workspace: Workspace, run_id: str, layer: str, target_layer: str | None = None
) -> RunTokens:
    """Opens a layer, and the layer that a transcoder predicts. Raises NotFoundError."""
    run_dir = workspace.run_dir(run_id)
    manifest = RunManifest.load(run_dir)
    spec = stored_layer(manifest, layer)
    if target_layer is not None:
        pair = PairReader(run_dir, spec.name, stored_layer(manifest, target_layer).name)
        return RunTokens(pair.first.manifest, pair.first.layer, pair.second.layer, pair)
    return RunTokens(manifest, spec, None, RunReader(run_dir, spec.name))
