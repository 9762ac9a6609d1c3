"""The two sets of texts that a vector tells apart: labels, documents, files, prompts."""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mi_crow.bounds import FEATURE
from mi_crow.errors import NotFoundError, UserError, nearest
from mi_crow.paths import expanded
from mi_crow.store.workspace import Workspace

if TYPE_CHECKING:
    from mi_crow.store.runs.manifest import RunManifest

_DOCUMENTS = re.compile(r"documents?:([\d,\s-]+)")
_FEWEST = 1
FEWEST_OF_SET = 8  # of two that are told apart: four to choose features by, four to measure on
_OTHERS = "others"


def texts_of(
    workspace: Workspace,
    words: Sequence[str],
    run_id: str | None,
    limit: int,
    seed: int,
    *,
    not_those: Sequence[str] = (),
) -> list[str]:
    """The texts that `words` name, at most `limit` of them, drawn with `seed`.

    Each is `label:sea` (the documents of run `run_id` with that label), `documents:3,7-12` (those
    of the run by their numbers), `others` (the run's documents that `not_those` do not name), the
    path of a file of texts, or a text itself. In a .txt file empty lines part the texts; in one
    without any, each line is a text. Raises UserError, NotFoundError in one sentence.
    """
    found: list[str] = []
    for word in words:
        if is_of_run(word):
            found += _of_run(workspace, word, run_id, not_those)
        elif looks_like_file(word):
            found += _of_file(expanded(word), limit)
        else:
            found.append(word)
    kept = list(dict.fromkeys(text for text in found if text.strip()))
    if len(kept) < _FEWEST:
        raise UserError(f"there is no text in {' '.join(map(repr, words))}", hint="name others")
    return random.Random(seed).sample(kept, limit) if len(kept) > limit else kept


def check_words(workspace: Workspace, words: Sequence[str], run_id: str | None) -> None:
    """Raises UserError, NotFoundError for words that cannot name texts: what needs a run where none
    is given, a label that the run does not have, a file that is not there. Reads no texts."""
    for word in words:
        if not word.strip():
            raise UserError("a text is empty", hint="leave it out")
        label = word.removeprefix("label:").strip() if word.startswith("label:") else ""
        if label or word == _OTHERS or _DOCUMENTS.fullmatch(word):
            if run_id is None:
                raise _needs_run(word)
            _numbers(word)
            if label:
                _check_label(workspace, run_id, label)
        elif looks_like_file(word) and not expanded(word).exists():
            raise _no_file(expanded(word))


def _check_label(workspace: Workspace, run_id: str, label: str) -> None:
    """What the first parts of a run do not have, later ones may."""
    from mi_crow.store.runs.glance import glance_at

    manifest = run_manifest(workspace, run_id)
    found = glance_at(workspace.run_dir(run_id), manifest, 0)
    if label not in found.labels and found.counted >= found.total:
        raise _no_label(run_id, label, sorted(found.labels))


def _needs_run(word: str) -> UserError:
    return UserError(f"{word!r} needs a run", hint="name one with --run")


def _no_file(path: Path) -> NotFoundError:
    return NotFoundError(f"no file {str(path)!r}", hint="or write a text, or label:NAME")


def _no_label(run_id: str, label: str, known: Sequence[str]) -> NotFoundError:
    hint = f"there is {nearest(label, known)}" if known else "its documents have no labels"
    return NotFoundError(f"no document of run {run_id!r} has label {label!r}", hint=hint)


def parted(text: str) -> list[str]:
    """The texts in one: what empty lines part or, without any, its lines."""
    between = r"\n\s*\n" if re.search(r"\n\s*\n", text.strip()) else r"\n"
    return [one.strip("\n") for one in re.split(between, text.strip()) if one.strip()]


def names_texts(word: str) -> bool:
    """Whether a word names texts, as `texts_of` understands it, and is not a text itself."""
    return is_of_run(word) or looks_like_file(word)


def texts_to_check(
    workspace: Workspace,
    words_for: Sequence[str],
    words_against: Sequence[str],
    run_id: str | None,
    limit: int,
    seed: int,
) -> tuple[list[str], list[str]]:
    """The texts of both sides of a check, either of which may be empty. Where documents of the run
    alone are on the one side, its other documents are on the other one: without them nothing could
    be a false alarm."""
    if words_for and not words_against and all(map(is_of_run, words_for)):
        words_against = [_OTHERS] if _OTHERS not in words_for else []
    sides = (words_for, words_against), (words_against, words_for)
    found_for, found_against = (
        texts_of(workspace, words, run_id, limit, seed, not_those=others) if words else []
        for words, others in sides
    )
    return found_for, found_against


def is_of_run(word: str) -> bool:
    return word.startswith("label:") or word == _OTHERS or bool(_DOCUMENTS.fullmatch(word))


def looks_like_file(word: str) -> bool:
    """Whether a word means a file of texts and is not a text itself."""
    from mi_crow.datasets.files import COMPRESSED, SUFFIXES

    if len(word) > 1024 or "\n" in word or "\0" in word:
        return False
    path = expanded(word)
    known = path.suffix.lower() in (*SUFFIXES, *COMPRESSED) and len(word.split()) == 1
    return known or path.is_file()


def _of_file(path: Path, limit: int) -> list[str]:
    from mi_crow.datasets import load_texts
    from mi_crow.datasets.files import is_compressed
    from mi_crow.language_model.config import DatasetSpec

    if not path.exists():
        raise _no_file(path)
    rows = load_texts(DatasetSpec(source=str(path))).rows()
    found = [str(text) for (text, _), _ in zip(rows, range(8 * limit), strict=False)]
    name = path.with_suffix("") if is_compressed(path) else path
    if len(found) == 1 and name.suffix.lower() == ".txt":
        return parted(found[0])[: 8 * limit]
    return found


def _of_run(
    workspace: Workspace, word: str, run_id: str | None, not_those: Sequence[str]
) -> Iterable[str]:
    if run_id is None:
        raise _needs_run(word)
    documents = list(run_documents(workspace, run_id))
    if word == _OTHERS:
        labels = {one.removeprefix("label:") for one in not_those if one.startswith("label:")}
        numbers = {n for one in not_those for n in _numbers(one)}
        return [text for n, text, label in documents if label not in labels and n not in numbers]
    if word.startswith("label:"):
        wanted = word.removeprefix("label:").strip()
        known = sorted({label for _, _, label in documents if label})
        if wanted not in known:
            raise _no_label(run_id, wanted, known)
        return [text for _, text, label in documents if label == wanted]
    numbers = _numbers(word)
    missing = numbers - {number for number, _, _ in documents}
    if missing:
        raise NotFoundError(f"run {run_id!r} has no document {min(missing)}")
    return [text for number, text, _ in documents if number in numbers]


def _numbers(word: str) -> set[int]:
    """The numbers in `documents:3,7-12`."""
    match = _DOCUMENTS.fullmatch(word)
    found: set[int] = set()
    for part in re.split(r"[,\s]+", match[1].strip()) if match else ():
        first, dash, last = part.partition("-")
        start = FEATURE.read(first, "document")
        end = FEATURE.read(last, "document") if dash else start
        if end - start > 10**6:
            raise UserError(f"documents {part} are too many", hint="name fewer")
        found.update(range(start, end + 1))
    return found


def run_documents(workspace: Workspace, run_id: str) -> Iterator[tuple[int, str, str | None]]:
    """Number, text and label of the documents of a run; of a long one its first window."""
    from mi_crow.store.runs.reader import RunReader

    manifest = run_manifest(workspace, run_id)
    for part in RunReader(workspace.run_dir(run_id), manifest.layers[0].name).parts():
        table = part.columns("document", "window", "text", "label")
        for row in table.to_pylist():
            if row["window"] == 0:
                yield row["document"], row["text"], row["label"]


def run_manifest(workspace: Workspace, run_id: str) -> "RunManifest":
    """The manifest of a run. Raises UserError, NotFoundError, CorruptDataError."""
    from mi_crow.store.runs.manifest import RunManifest

    return RunManifest.load(workspace.run_dir(run_id))
