"""The workspace: one folder with runs, SAEs, jobs and annotations."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from mi_crow.clean_text import check_name
from mi_crow.errors import CorruptDataError, MiCrowError, NotFoundError, UserError, nearest
from mi_crow.paths import expanded
from mi_crow.store.atomic import read_json, temporary_name, write_json
from mi_crow.store.evaluation_file import read_checked, read_evaluation, read_trained
from mi_crow.store.free_space import nearest_existing
from mi_crow.store.ids import make_folder, validate_id
from mi_crow.store.json_object import JsonObject
from mi_crow.store.runs.manifest import MANIFEST_NAME, RunManifest
from mi_crow.store.unreadable import Unreadable, folders_with

DEFAULT_NAME = "mi-crow-workspace"
ENVIRONMENT_NAME = "MI_CROW_WORKSPACE"
MARKER_NAME = "workspace.json"
RENAMING_NAME = ".renaming.json"  # a renaming in progress
FORMAT_VERSION = 1
_MOST_WIDTH = 2**31 - 1
# What a workspace has, and the file in each one's folder that makes it whole.
MARKERS = {"run": MANIFEST_NAME, "SAE": "cfg.json", "job": "spec.json"}

Summary = TypeVar("Summary")


@dataclass(frozen=True)
class SaeSummary:
    """One SAE of the workspace, read from its JSON files."""

    sae_id: str
    path: Path
    architecture: str
    n_inputs: int
    n_latents: int
    k: int | None
    model_id: str
    layer: str  # canonical module name
    run_id: str | None  # the run it was trained on, when that is known
    has_index: bool
    evaluation: dict[str, Any] | None
    bytes: int
    tokenizer_hash: str | None = None  # of the model it was trained on, when that is known
    evaluation_trouble: str = ""  # why its evaluation cannot be read, where there is one
    # What its training measured at its end; of one that was evaluated nobody asks.
    trained: dict[str, float] = field(default_factory=dict)
    checked: dict[str, float] = field(default_factory=dict)  # and what its import's check did
    layers: tuple[str, ...] = ()  # all that it reads, of an SAE over several layers
    models: tuple[tuple[str, str, str | None], ...] = ()  # of one over two: role, model and run

    @property
    def several(self) -> bool:
        """Whether it reads several layers, of one model or of two."""
        return bool(self.layers or self.models)


@dataclass(frozen=True)
class RunSummary:
    """One activations run of the workspace."""

    run_id: str
    path: Path
    manifest: RunManifest
    bytes: int


class Workspace:
    """The paths in one workspace, and lists of what it contains. Torch-free and cheap."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def locate(cls, path: str | os.PathLike[str] | None = None) -> Path:
        """The folder `path`, else MI_CROW_WORKSPACE, else `./mi-crow-workspace`.

        Raises UserError for a name that is not text, which DuckDB and JSON cannot store.
        """
        named = os.fspath(path or os.environ.get(ENVIRONMENT_NAME) or DEFAULT_NAME)
        return expanded(check_name(named, "workspace"))

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] | None = None, *, create: bool = True
    ) -> "Workspace":
        """Opens the workspace; creates it first if needed, when `create` is set.

        Raises UserError when the path is a file, cannot be read, or has a newer format, and
        NotFoundError when it does not exist and `create` is off.
        """
        workspace = cls.plan(path)
        if create:
            workspace.ensure()
        elif not workspace.exists():
            raise NotFoundError(
                f"no workspace at {str(workspace.root)!r}",
                hint="run `mi-crow demo` or `mi-crow capture` first, or give --workspace",
            )
        return workspace

    @classmethod
    def plan(cls, path: str | os.PathLike[str] | None = None) -> "Workspace":
        """The workspace at `path`, which need not exist yet; nothing is written.

        Raises UserError when it could not be used or made: a file, a folder of other things, no
        permission, a newer format.
        """
        root = cls.locate(path).absolute()
        marker = root / MARKER_NAME
        try:
            if root.exists() and not root.is_dir():
                raise UserError(
                    f"workspace {str(root)!r} is a file", hint="give a folder with --workspace"
                )
            if not marker.exists():
                _refuse_other_files(root)
                _refuse_unwritable(root)
                return cls(root)
            names = os.listdir(root)
            version = int(read_json(marker).get("format_version", 0))
        except OSError as error:
            raise _unusable(root, error) from error
        except (AttributeError, TypeError, ValueError) as error:
            raise CorruptDataError(f"{marker} is not a workspace file") from error
        if version > FORMAT_VERSION:
            raise UserError(
                f"workspace {str(root)!r} has format {version}, this mi-crow reads up to "
                f"{FORMAT_VERSION}",
                hint="upgrade mi-crow",
            )
        workspace = cls(root)
        if RENAMING_NAME in names:
            _finish_renaming(workspace)
        return workspace

    def exists(self) -> bool:
        """True once the workspace was created."""
        return (self.root / MARKER_NAME).is_file()

    def ensure(self) -> None:
        """Creates the workspace if it does not exist. Raises UserError when that fails."""
        if self.exists():
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write_json(
                self.root / MARKER_NAME, {"format_version": FORMAT_VERSION, "created": time.time()}
            )
        except OSError as error:
            raise _unusable(self.root, error) from error

    @property
    def activations_dir(self) -> Path:
        return self.root / "activations"

    @property
    def saes_dir(self) -> Path:
        return self.root / "saes"

    @property
    def jobs_dir(self) -> Path:
        return self.root / "jobs"

    @property
    def vectors_dir(self) -> Path:
        return self.root / "vectors"

    @property
    def annotations_path(self) -> Path:
        return self.root / "annotations.sqlite"

    def parent_of(self, what: str) -> Path:
        """The folder of all of one kind: `what` is "run", "SAE" or "job"."""
        return {"run": self.activations_dir, "SAE": self.saes_dir, "job": self.jobs_dir}[what]

    def folder_of(self, what: str, name: str) -> Path:
        """The folder of an existing, whole run, SAE or job. Raises UserError or NotFoundError."""
        folder = self.parent_of(what) / validate_id(name, what)
        if not (folder / MARKERS[what]).is_file():
            found = folders_with(self.parent_of(what), MARKERS[what], what)
            known = [entry.name for entry, trouble in found if trouble is None]
            hint = f"there is {nearest(name, known)}" if known else f"this workspace has no {what}s"
            raise NotFoundError(f"{what} {name!r} not found", hint=hint)
        return folder

    def run_dir(self, run_id: str) -> Path:
        """The folder of an existing run. Raises UserError or NotFoundError."""
        return self.folder_of("run", run_id)

    def sae_dir(self, sae_id: str) -> Path:
        """The folder of an existing, whole SAE. Raises UserError or NotFoundError."""
        return self.folder_of("SAE", sae_id)

    def sae_or_path(self, name: str) -> Path:
        """The folder of the SAE with this id, else the path `name` if it exists. Raises
        NotFoundError for neither."""
        try:
            return self.sae_dir(name)
        except UserError:
            path = expanded(name)
            if not path.exists():
                raise
            return path

    def job_dir(self, job_id: str) -> Path:
        """The folder of an existing job. Raises UserError or NotFoundError."""
        return self.folder_of("job", job_id)

    def index_path(self, sae_id: str) -> Path:
        """The path of an existing SAE's feature index, which may not exist yet."""
        return self.sae_dir(sae_id) / "features.duckdb"

    def run_named(self, run_id: str) -> str:
        """The present id of the run that was once called `run_id`; `run_id` itself if unknown."""
        if (self.activations_dir / run_id / MANIFEST_NAME).is_file():
            return run_id
        for run in self.list_runs():
            if run_id in run.manifest.former_ids:
                return run.run_id
        return run_id

    def make_run_dir(self, name: str | None, short: str) -> Path:
        return make_folder(self.activations_dir, name, short, "run")

    def make_sae_dir(self, name: str | None, short: str) -> Path:
        return make_folder(self.saes_dir, name, short, "SAE")

    def make_job_dir(self, short: str) -> Path:
        return make_folder(self.jobs_dir, None, short, "job")

    def list_runs(self) -> list[RunSummary]:
        """All readable runs, oldest first; unreadable ones are left out."""
        return self.scan_runs()[0]

    def scan_runs(self) -> tuple[list[RunSummary], list[Unreadable]]:
        """The readable runs, oldest first, and the others, each with why it cannot be read."""

        def read(folder: Path) -> tuple[float, RunSummary]:
            manifest = RunManifest.load(folder)
            summary = RunSummary(folder.name, folder, manifest, folder_bytes(folder))
            return manifest.created, summary

        return self._scan("run", read)

    def list_saes(self) -> list[SaeSummary]:
        """All readable SAEs, oldest first; unreadable ones are left out."""
        return self.scan_saes()[0]

    def scan_saes(self) -> tuple[list[SaeSummary], list[Unreadable]]:
        """The readable SAEs, oldest first, and the others, each with why it cannot be read."""

        def read(folder: Path) -> tuple[float, SaeSummary]:
            return (folder / MARKERS["SAE"]).stat().st_mtime, read_sae_summary(folder)

        return self._scan("SAE", read)

    def _scan(
        self, what: str, read: Callable[[Path], tuple[float, Summary]]
    ) -> tuple[list[Summary], list[Unreadable]]:
        """What `read` gives for each folder, by the time that comes with it and then by name."""
        found: list[tuple[float, str, Summary]] = []
        unreadable: list[Unreadable] = []
        for folder, trouble in folders_with(self.parent_of(what), MARKERS[what], what):
            if trouble is not None:
                unreadable.append(trouble)
                continue
            try:
                created, summary = read(folder)
                found.append((created, folder.name, summary))
            except (NotFoundError, FileNotFoundError):  # removed meanwhile
                continue
            except (MiCrowError, OSError) as error:
                unreadable.append(Unreadable.because(what, folder, error))
        found.sort(key=lambda one: one[:2])
        return [summary for _, _, summary in found], unreadable

    def delete(self, folder: Path) -> None:
        """Deletes a folder of this workspace; a reader sees all or none of it.

        Raises UserError for a link and for anything outside the workspace.
        """
        root, resolved = self.root.resolve(), folder.resolve()
        if folder.is_symlink() or resolved == root or not resolved.is_relative_to(root):
            raise UserError(f"{str(folder)!r} is not inside the workspace, nothing was deleted")
        doomed = temporary_name(folder)
        folder.rename(doomed)
        shutil.rmtree(doomed)


def read_sae_summary(folder: Path) -> SaeSummary:
    """Reads the JSON files in an SAE's folder. Raises CorruptDataError."""
    path = folder / "cfg.json"
    value = read_json(path)
    try:
        return _sae_summary(folder, JsonObject.of(value, path.name))
    except CorruptDataError as error:
        raise CorruptDataError(f"{path} is not an SAE's ({error})") from error


def _sae_summary(folder: Path, cfg: JsonObject) -> SaeSummary:
    metadata = cfg.object("metadata", {})
    own = metadata.object("mi_crow", {})
    # Some are stored as the architecture that other tools use at inference.
    rule = own.object("trained_as", cfg.values)
    k = rule.number("k", None)
    evaluation, trouble = read_evaluation(folder)
    return SaeSummary(
        sae_id=folder.name,
        path=folder,
        architecture=rule.text("architecture"),
        n_inputs=cfg.integer("d_in", least=1, most=_MOST_WIDTH),
        n_latents=cfg.integer("d_sae", least=1, most=_MOST_WIDTH),
        k=None if k is None else round(k),
        model_id=metadata.text("model_name", None) or "",
        layer=own.text("layer", None)
        or own.text("point", None)
        or metadata.text("hook_name", None)
        or "",
        run_id=own.text("run_id", None),
        has_index=(folder / "features.duckdb").is_file(),
        evaluation=evaluation,
        bytes=folder_bytes(folder),
        tokenizer_hash=own.text("tokenizer_hash", None),
        evaluation_trouble=trouble,
        trained={} if evaluation else read_trained(folder),
        checked={} if evaluation else read_checked(folder),
        layers=metadata.texts("layers", ()) if "layers" in cfg.values else (),
        models=tuple(
            (one.text("role"), one.text("name"), one.text("run_id", None))
            for one in cfg.objects("models", ())
        ),
    )


def folder_bytes(folder: Path) -> int:
    """Size in bytes of all files below `folder`, links not followed."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except OSError:
                continue  # renamed or removed meanwhile, or not readable
    return total


def _finish_renaming(workspace: Workspace) -> None:
    """Finishes a renaming that a killed process started. Imported by name: renaming knows of jobs
    and concepts, which the store must not import."""
    import_module("mi_crow.jobs.renaming").finish_renaming(workspace)


def _refuse_other_files(root: Path) -> None:
    """Never adopts a folder that already contains something else."""
    if root.is_dir() and any(not entry.name.startswith(".") for entry in root.iterdir()):
        raise UserError(
            f"{str(root)!r} holds other files and no workspace",
            hint="give a new or empty folder with --workspace",
        )


def _refuse_unwritable(root: Path) -> None:
    """The nearest folder that exists must be writable."""
    place = nearest_existing(root)
    if not place.is_dir():
        raise UserError(f"{str(place)!r} is a file", hint="give a folder with --workspace")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(
            f"workspace {str(root)!r} cannot be created ({str(place)!r} is not writable)",
            hint="give a folder that you can read and write with --workspace",
        )


def _unusable(root: Path, error: OSError) -> UserError:
    return UserError(
        f"workspace {str(root)!r} cannot be used ({error.strerror})",
        hint="give a folder that you can read and write with --workspace",
    )
