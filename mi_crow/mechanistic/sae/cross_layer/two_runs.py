"""Whether the runs of two models hold the same tokens, row for row. Torch-free."""

from collections.abc import Sequence
from pathlib import Path

from mi_crow.errors import UserError
from mi_crow.store.runs.manifest import RunManifest

_SAME = "capture the same texts with the same settings (--batch-size may differ) for both models"


def check_same_tokenizer(base: RunManifest, tuned: RunManifest) -> None:
    """Raises UserError for models with different tokenizers, whose tokens cannot be compared."""
    if base.tokenizer_hash != tuned.tokenizer_hash:
        raise UserError(
            f"run {base.run_id!r} is of model {base.model_id!r}, whose tokenizer is not that of "
            f"{tuned.model_id!r} (run {tuned.run_id!r})",
            hint="compare models with one tokenizer",
        )


def check_same_tokens(runs: Sequence[Path], base: RunManifest, tuned: RunManifest) -> None:
    """Raises UserError unless both runs, in the folders `runs`, hold the same rows for the same
    tokens of the same documents. Reads their tokens only where the files' checksums differ."""
    from mi_crow.store.runs.parts import TOKENS

    for manifest in (base, tuned):
        manifest.require_complete()
    check_same_tokenizer(base, tuned)
    differ = UserError(
        f"runs {base.run_id!r} and {tuned.run_id!r} do not hold the same tokens", hint=_SAME
    )
    if [part.tokens for part in base.parts] != [part.tokens for part in tuned.parts]:
        raise differ
    for first, second in zip(base.parts, tuned.parts, strict=True):
        sums = [part.files.get(TOKENS) for part in (first, second)]
        if sums[0] is not None and sums[0] == sums[1]:
            continue
        paths = [
            run / TOKENS / f"{part.stem}.parquet"
            for run, part in zip(runs, (first, second), strict=True)
        ]
        if not _same_tokens(*paths):
            raise differ


def _same_tokens(first: Path, second: Path) -> bool:
    import pyarrow.parquet as pq

    wanted = ["document", "window", "split", "token_ids", "kept"]
    found = [pq.read_table(path, columns=wanted) for path in (first, second)]
    return found[0].equals(found[1])
