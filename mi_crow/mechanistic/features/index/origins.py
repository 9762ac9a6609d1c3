"""Where the tokens of an index come from, as recorded in `meta.sources`. Torch-free."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from mi_crow.errors import CorruptDataError, MiCrowError, UserError
from mi_crow.language_model.config import DatasetSpec, LiveTexts, ModelSpec
from mi_crow.paths import expanded
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import Workspace


@dataclass(frozen=True)
class Origin:
    """A run of the workspace, or texts that went through the model, and what was read of it."""

    run_id: str | None = None
    texts: LiveTexts | None = None
    fingerprint: str | None = None  # None: not read yet
    parts: tuple[str, ...] = ()  # of a run
    tuned_run: str | None = None  # of the tuned model, where `run_id` is that of the base model

    @property
    def indexed(self) -> bool:
        return self.fingerprint is not None

    @property
    def name(self) -> str:
        if self.texts is not None:
            return f"dataset {self.texts.dataset.source!r}"
        return f"run {self.run_id!r}"

    def read(self, manifest: RunManifest) -> "Origin":
        """The same with the content that the manifest records, and the model as it was loaded."""
        parts = tuple(part.stem for part in manifest.parts)
        texts = self.texts
        if texts is not None:
            texts = replace(
                texts,
                model=_recorded(texts.model, manifest),
                dataset=replace(texts.dataset, source=_absolute_source(texts.dataset)),
            )
        return replace(self, texts=texts, fingerprint=manifest.fingerprint, parts=parts)

    def as_json(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"fingerprint": self.fingerprint, "parts": list(self.parts)}
        if self.texts is not None:
            return {"run_id": None, "live": asdict(self.texts), **facts}
        tuned = {} if self.tuned_run is None else {"tuned_run": self.tuned_run}
        return {"run_id": self.run_id, **tuned, **facts}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Origin":
        """Raises KeyError or TypeError for data that `as_json` did not write."""
        live = data.get("live")
        texts = None
        if live is not None:
            specs: dict[str, Any] = {
                "dataset": DatasetSpec(**live["dataset"]),
                "model": ModelSpec(**live["model"]),
            }
            texts = LiveTexts(**{**live, **specs})
        run_id, tuned_run = data["run_id"], data.get("tuned_run")
        return cls(run_id, texts, data["fingerprint"], tuple(data["parts"]), tuned_run)


def known_origins(workspace: Workspace, sae_id: str) -> list[Origin]:
    """What the index of an SAE was made from. Raises NotFoundError without an index,
    CorruptDataError."""
    from mi_crow.mechanistic.features.queries import FeatureStore

    sources = FeatureStore.open(workspace, sae_id).meta().sources
    try:
        origins = [Origin.from_json(source) for source in sources]
    except (KeyError, TypeError) as error:
        raise CorruptDataError(
            f"the feature index of {sae_id!r} does not say what it was made from ({error!r})",
            hint="index without --append",
        ) from error
    return [_as_named_now(workspace, origin) for origin in origins]


def indexed_over(workspace: Workspace, run_id: str) -> list[str]:
    """The SAEs whose index was made from a run: appending to one reads the run again."""
    found = []
    for sae in workspace.list_saes():
        try:
            origins = known_origins(workspace, sae.sae_id) if sae.has_index else []
        except MiCrowError:
            continue  # an index that cannot be read is not appended to
        if any(run_id in (origin.run_id, origin.tuned_run) for origin in origins):
            found.append(sae.sae_id)
    return found


def _as_named_now(workspace: Workspace, origin: Origin) -> Origin:
    """An index is never changed: it has the name that the run had when it was built."""
    if origin.run_id is None:
        return origin
    tuned = None if origin.tuned_run is None else workspace.run_named(origin.tuned_run)
    return replace(origin, run_id=workspace.run_named(origin.run_id), tuned_run=tuned)


def check_unchanged(origin: Origin, manifest: RunManifest) -> None:
    """Raises UserError when the content has changed since it was indexed."""
    parts = tuple(part.stem for part in manifest.parts)
    if origin.indexed and (origin.fingerprint, origin.parts) != (manifest.fingerprint, parts):
        raise UserError(
            f"{origin.name} has changed since it was indexed", hint="index without --append"
        )


def _recorded(model: ModelSpec | None, manifest: RunManifest) -> ModelSpec:
    """What loads the same model again, except that remote code must be allowed each time."""
    spec = model or ModelSpec(manifest.model_id)
    name = _absolute(spec.model)
    revision = manifest.revision or spec.revision
    return replace(
        spec, model=name, revision=revision, device="auto", trust_remote_code=False, offline=False
    )


def _absolute_source(dataset: DatasetSpec) -> str:
    return dataset.source if dataset.source == "sample" else _absolute(dataset.source)


def _absolute(name: str) -> str:
    """A path as an absolute path; a hub id unchanged."""
    path = expanded(name)
    return str(path.absolute()) if name != "sample" and path.exists() else name
