"""Large files of the Hugging Face Hub in pieces: a download that broke off, or whose process was
killed, goes on where it stopped.

The Hub's client starts each download anew, under a name of its own. So a large file is downloaded
here, to where the client keeps whole files and then finds it: under the sha256 that the hub names,
or, from a mirror that names none, under the file's ETag.

Above 50 GB the client refuses to begin a plain request, but not to go on with one, and the Hub
itself serves such files through xet alone, which cannot go on. No published SAE is known to have
one.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mi_crow.errors import CorruptDataError
from mi_crow.store.leftovers import Leftover

LARGE = 10_000_000  # bytes; on the hub itself larger files have a sha256

_PART = ".incomplete"
_FIRST = 8 * 2**20  # bytes of a first request for a part of a file
_TAG = re.compile(r"[\w-]{8,128}")  # an ETag that may name a file


def part_bytes(repository: str, sha256: str) -> int:
    """How much of a file an earlier attempt has downloaded."""
    try:
        return _part(repository, sha256).stat().st_size
    except OSError:
        return 0


def download(
    repository: str, name: str, commit: str, sha256: str | None, bar: type[Any] | None
) -> bool:
    """Puts a file into the hub's cache under its sha256, or where that is not known its ETag, going
    on with what is there of it.

    `bar` is the class of the progress bar. False: left to the Hub's client, because the file is
    elsewhere in the cache, or only xet serves it. Raises CorruptDataError, and forgets the file, if
    its sum is another, and what the client raises; what was downloaded by then is kept.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    url = hf_hub_url(repository, name, revision=commit)
    found = get_hf_file_metadata(url)
    tag, length = found.etag, found.size
    if tag is None or length is None or _TAG.fullmatch(tag) is None or tag != (sha256 or tag):
        return False
    huge = length > constants.MAX_HTTP_DOWNLOAD_SIZE
    has_xet = find_spec("hf_xet") is not None and not constants.HF_HUB_DISABLE_XET
    if huge and has_xet and found.xet_file_data is not None:
        return False
    part, lock = _part(repository, tag), _lock_of(_part(repository, tag))
    whole = part.with_suffix("")
    for folder in (part.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if whole.exists():
            return False
        headers = build_hf_headers()
        with part.open("ab") as file:
            if file.tell() > length:
                file.truncate(0)
                file.seek(0)
            if huge and not file.tell():
                first = headers | {"Range": f"bytes=0-{_FIRST - 1}"}
                http_get(url, file, headers=first, expected_size=_FIRST)
            http_get(
                url,
                file,
                resume_size=file.tell(),
                headers=headers,
                expected_size=length,
                tqdm_class=bar,
            )
            file.flush()
            os.fsync(file.fileno())
        if sha256 is not None:
            with part.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    part.unlink()
                    raise CorruptDataError(f"the sha256 of {name!r} is not the hub's")
        part.replace(whole)
        for other in whole.parent.glob(f"{tag}.*{_PART}"):  # of clients that were killed
            other.unlink(missing_ok=True)
    return True


def abandoned_parts() -> Iterator[Leftover]:
    """Parts of files in the hub's cache that no process downloads now."""
    from huggingface_hub import constants

    for part in sorted(Path(constants.HF_HUB_CACHE).glob(f"*--*/blobs/*{_PART}")):
        if not _is_locked(_lock_of(part)):
            try:
                yield Leftover(part, part.stat().st_size)
            except OSError:
                continue  # it is whole now


def _part(repository: str, sha256: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = repo_folder_name(repo_id=repository, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder / "blobs" / f"{sha256}{_PART}"


def _lock_of(part: Path) -> Path:
    """The Hub's client has one for each file of a repository; see `hf_hub_download`."""
    folder = part.parent.parent
    return folder.parent / ".locks" / folder.name / f"{part.name.partition('.')[0]}.lock"


def _is_locked(lock: Path) -> bool:
    try:
        with lock.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False  # there is none
    return False
