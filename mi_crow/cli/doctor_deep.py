"""`mi-crow doctor --deep`: verifies every byte of a run or an SAE."""

from collections.abc import Iterator
from pathlib import Path

from mi_crow.cli.doctor_checks import CheckResult
from mi_crow.cli.formatting import count, size
from mi_crow.errors import MiCrowError, NotFoundError
from mi_crow.mechanistic.features.connection import read_through
from mi_crow.mechanistic.sae.metadata import CONFIG_NAME, WEIGHTS_NAME
from mi_crow.store.atomic import read_json
from mi_crow.store.checksums import FileSum, difference, sum_of
from mi_crow.store.runs.manifest import RunManifest
from mi_crow.store.workspace import Workspace

_NO_SUMS = "written without checksums, so its bytes cannot be compared"


def examine_deeply(workspace: Workspace, name: str) -> list[CheckResult]:
    """Checks the files of a run or an SAE. Raises NotFoundError when it is neither."""
    try:
        folder = workspace.run_dir(name)
    except NotFoundError:
        try:
            return list(_examine_sae(workspace.sae_dir(name), name))
        except NotFoundError:
            raise NotFoundError(
                f"no run or SAE is called {name!r}",
                hint="mi-crow runs and mi-crow saes list them",
            ) from None
    return list(_examine_run(folder, name))


def _examine_run(folder: Path, name: str) -> Iterator[CheckResult]:
    from mi_crow.store.runs.verify import damaged_files, false_statements

    manifest = RunManifest.load(folder)
    summed = sum(bool(part.files) for part in manifest.parts)
    if summed < len(manifest.parts):
        yield CheckResult("checksums", "note", f"run {name!r}: {_NO_SUMS}")
    advice = "capture the run again"
    if not manifest.complete:
        advice = "resume its capture, which rewrites these parts: mi-crow jobs"
    damaged = []
    for one in damaged_files(folder, manifest):
        damaged.append(one.path)
        yield CheckResult("files", "warning", f"{one.path}: {one.why}", advice)
    for one in false_statements(folder, manifest):
        if one.path not in damaged:
            damaged.append(one.path)
            yield CheckResult("contents", "warning", f"{one.path}: {one.why}", advice)
    if not damaged:
        stored = sum(file.bytes for part in manifest.parts for file in part.files.values())
        compared = f", {size(stored)} with matching checksums" if summed else ""
        parts = len(manifest.parts)
        yield CheckResult(
            "contents",
            "ok",
            f"run {name!r}: {count(parts)} part{'s' * (parts != 1)}, "
            f"{count(manifest.n_tokens)} tokens{compared}; norms, splits and counts are correct",
        )


def _examine_sae(folder: Path, name: str) -> Iterator[CheckResult]:
    weights = folder / WEIGHTS_NAME
    written = weights_sum(folder)
    if written is None:
        yield CheckResult("checksums", "note", f"SAE {name!r}: {_NO_SUMS}")
    elif not weights.is_file():
        yield CheckResult("files", "warning", f"{weights} is missing", _again(folder))
    elif why := difference(written, sum_of(weights)):
        yield CheckResult("files", "warning", f"{weights}: {why}", _again(folder))
    else:
        yield CheckResult(
            "files", "ok", f"SAE {name!r}: {size(written.bytes)} with a matching checksum"
        )
    index = folder / "features.duckdb"
    if not index.exists():
        return
    try:
        rows = read_through(index, name)
    except MiCrowError as error:
        yield CheckResult("index", "warning", f"{index}: {error}", error.hint)
    else:
        yield CheckResult("index", "ok", f"{index.name}: all {count(rows)} rows can be read")


def weights_sum(folder: Path) -> FileSum | None:
    """The checksum of an SAE's weights in `cfg.json`; None without one. Raises CorruptDataError."""
    try:
        return FileSum.from_json(read_json(folder / CONFIG_NAME)["metadata"]["mi_crow"]["weights"])
    except (KeyError, TypeError):
        return None


def _again(folder: Path) -> str:
    if (folder / "training.json").exists():
        return "train it again, or restore the file from a copy"
    return "import it again, or restore the file from a copy"
