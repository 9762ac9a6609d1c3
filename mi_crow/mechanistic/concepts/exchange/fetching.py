"""Neuronpedia's public export, fetched: the explanations of one source. Torch-free.

The export is a bucket of S3: `v1/<model>/<source>/explanations/batch-0.jsonl.gz`, ... Its address
can be another, a mirror with the same layout: the environment's MI_CROW_NEURONPEDIA.
"""

import html
import os
import re
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import urlopen

from mi_crow.causes import machine_error
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.exchange.importing import (
    Concepts,
    Imported,
    Rule,
    import_concepts,
)
from mi_crow.mechanistic.concepts.exchange.neuronpedia import BATCH
from mi_crow.progress import NullProgress, Progress, raise_if_stopped
from mi_crow.store.workspace import Workspace

EXPORT = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com/v1"
VARIABLE = "MI_CROW_NEURONPEDIA"
_PATIENCE = 20.0  # seconds without a byte
_MOST = 2 << 30  # bytes of all batches
_PIECE = 1 << 20
_MOST_LISTED = 16 << 20  # bytes of one page of names
_MOST_PAGES = 200  # of names, a thousand each
_KEY = re.compile(r"<Key>([^<]*)</Key>")
_NEXT = re.compile(r"<NextContinuationToken>([^<]*)</NextContinuationToken>")
_BY_HAND = "download the folder elsewhere, and import it with `mi-crow neuronpedia import FOLDER`"
_ID = re.compile(r"[\w.-]+/[\w.-]+")


def fetch_and_import(
    workspace: Workspace,
    annotations: Concepts,
    sae_id: str,
    known_as: str,
    *,
    rule: Rule = "keep",
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Imported:
    """The explanations of `known_as` (model/source id) as concepts of the SAE `sae_id`, all of them
    or none; rows that are wrong are left out.

    Raises UserError when Neuronpedia cannot be reached, NotFoundError when it has none, and what
    `import_concepts` raises.
    """
    with TemporaryDirectory(prefix="mi-crow-neuronpedia-") as folder:
        path = fetch_explanations(known_as, Path(folder), progress)
        return import_concepts(
            workspace,
            annotations,
            path,
            sae_id=sae_id,
            rule=rule,
            source_id=known_as.partition("/")[2],
            skip_bad=True,
            dry_run=dry_run,
        )


def fetch_explanations(known_as: str, folder: Path, progress: Progress | None = None) -> Path:
    """Downloads the batches of `known_as` (model/source id) into `folder`, and returns it. Raises
    UserError, NotFoundError, CancelledError."""
    progress = progress or NullProgress()
    if _ID.fullmatch(known_as) is None:
        raise UserError(
            f"{known_as!r} is not a source of Neuronpedia",
            hint="it is model/source id, such as gpt2-small/10-res-jb",
        )
    base = urlsplit(os.environ.get(VARIABLE) or EXPORT)
    root = f"{base.scheme}://{base.netloc}"
    prefix = f"{base.path.strip('/')}/{known_as}/explanations/".lstrip("/")
    names = [
        name for name in _listed(root, prefix, progress) if BATCH.match(name.removeprefix(prefix))
    ]
    if not names:
        raise NotFoundError(
            f"Neuronpedia exports no explanations of {known_as}",
            hint="features are named by `mi-crow explain` too",
        )
    total = 0
    for done, name in enumerate(names):
        progress.update(done, len(names), "batch")
        total += _download(f"{root}/{quote(name)}", folder / name.rpartition("/")[2], progress)
        if total > _MOST:
            raise UserError(f"the explanations of {known_as} are larger than {_MOST >> 30} GiB")
    progress.update(len(names), len(names), "batch")
    return folder


def _listed(root: str, prefix: str, progress: Progress) -> list[str]:
    """The names of all files that begin with `prefix`. Raises UserError for a list without end."""
    found: list[str] = []
    asked = {"list-type": "2", "prefix": prefix}
    for _ in range(_MOST_PAGES):
        raise_if_stopped(progress, resumable=False)
        page = b"".join(_pieces(f"{root}/?{urlencode(asked)}", _MOST_LISTED)).decode(
            errors="replace"
        )
        found += [html.unescape(name) for name in _KEY.findall(page)]
        token = _NEXT.search(page)
        if token is None or len(found) > 100_000:
            return found
        following = html.unescape(token[1])
        if following == asked.get("continuation-token"):
            break
        asked["continuation-token"] = following
    raise UserError("the list of Neuronpedia's export does not end", hint=_BY_HAND)


def _download(url: str, path: Path, progress: Progress) -> int:
    """Writes what is at `url`; its size."""
    size = 0
    try:
        with path.open("wb") as file:
            for piece in _pieces(url, _MOST):
                raise_if_stopped(progress, resumable=False)
                size += file.write(piece)
    except OSError as error:
        raise machine_error(error, path) or UserError(
            f"{str(path)!r} cannot be written ({error.strerror})"
        ) from error
    return size


def _pieces(url: str, most: int) -> Iterator[bytes]:
    """What is at `url`, a piece at a time. Raises UserError, NotFoundError."""
    got = 0
    try:
        with urlopen(url, timeout=_PATIENCE) as answer:
            said = int(answer.headers.get("Content-Length") or 0)
            while piece := answer.read(_PIECE):
                got += len(piece)
                if got > most:
                    raise UserError(f"{url!r} answers with more than {most >> 20} MiB")
                yield piece
    except HTTPError as error:
        raise NotFoundError(
            f"Neuronpedia's export refused to answer ({error.code} {error.reason})",
            hint=_BY_HAND,
        ) from error
    except (OSError, HTTPException) as error:  # URLError is one
        raise UserError(
            f"Neuronpedia's export was not reached ({getattr(error, 'reason', None) or error})",
            hint=_BY_HAND,
        ) from error
    if got < said:
        raise UserError(
            f"Neuronpedia's answer ended after {got:,} of {said:,} bytes", hint="try again"
        )
