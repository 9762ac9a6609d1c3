"""Errors of the system (memory, disk, permissions), whichever library reports them, in a sentence.

Libraries wrap them in errors of their own: safetensors and torch report a lack of memory as an
unreadable file, DuckDB and pyarrow put the errno into a text, SQLite has codes of its own. Treating
them all as damage would make users recreate intact data. So code that turns a library's error into
a sentence asks here first.
"""

import errno
import os
import re
import traceback
from collections.abc import Iterator
from typing import TypeGuard

from mi_crow.errors import MachineError, MiCrowError

# By cause: the message for a place, and the hint.
_SENTENCES: dict[int, tuple[str, str]] = {
    errno.ENOMEM: (
        "out of memory while using {place}",
        "close other programs, lower --batch-size, or use a larger machine",
    ),
    errno.ENOSPC: ("the disk of {place} is full", "free some space there"),
    errno.EDQUOT: (
        "the disk quota for {place} is used up",
        "free some space or ask for more",
    ),
    errno.EFBIG: ("{place} exceeds the maximum file size", "use another disk, or raise ulimit -f"),
    errno.EACCES: (
        "{place} cannot be used (permission denied)",
        "ask its owner for permission, or run as another user",
    ),
    errno.EMFILE: (
        "too many open files ({place} cannot be opened)",
        "raise the limit: ulimit -n 65536",
    ),
    errno.ENFILE: (
        "too many open files on this machine ({place} cannot be opened)",
        "close other programs, or raise fs.file-max",
    ),
    errno.EIO: (
        "{place} cannot be read or written (input/output error)",
        "the disk or its connection is failing: check dmesg, and copy your data elsewhere",
    ),
    errno.EROFS: (
        "{place} cannot be written (read-only file system)",
        "use a folder on a writable disk",
    ),
    errno.ENOENT: ("{place} is missing", "restore it, or name another"),
    errno.ESTALE: (
        "{place} cannot be reached (stale file handle)",
        "the file server was restarted or the file replaced: try again",
    ),
}
_SAME = {errno.EPERM: errno.EACCES}

# SQLite's primary result codes (sqlite.org/rescode.html); the module is not imported for them.
_SQLITE = {3: errno.EACCES, 7: errno.ENOMEM, 10: errno.EIO, 13: errno.ENOSPC}
_SQLITE_CANNOT_OPEN = 14

# Errors of these libraries come from another machine.
_ANSWERS = ("huggingface_hub", "httpx", "requests", "urllib3")
_NUMBERED = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]|\berrno:? (\d+)\b|: error code (\d+)")
# The system's own messages, which torch and DuckDB quote.
_WORDED = re.compile("|".join(re.escape(os.strerror(code)) for code in (*_SENTENCES, *_SAME)))
_CODE_OF_WORDS = {os.strerror(code): code for code in (*_SENTENCES, *_SAME)}
# Before a name, as `store.atomic.temporary_name` gives it.
_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{6}-\d+-\d*-[0-9a-f]{12}-(?=[^/]+$)")
_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|std::bad_alloc|failed to map segment from shared object"
    r"|CUBLAS_STATUS_ALLOC_FAILED|^malloc of size|failed to allocate",
    re.IGNORECASE,
)


def cause_of(error: BaseException) -> int | None:
    """The `errno` of the system error behind `error`; None if there is none. EPERM counts as
    EACCES."""
    for one in _chain(error):
        code = _own_cause(one)
        # A missing file earlier in the chain may have been handled by the very step that failed.
        if code is not None and (one is error or code != errno.ENOENT):
            return code
    return None


def machine_error(
    error: BaseException, place: str | os.PathLike[str] = "", *, tell_missing: bool = False
) -> MachineError | None:
    """The sentence for the system error behind `error`; None if there is none.

    `place` is what was read or written, for errors that do not name a file. A missing file is only
    reported with `tell_missing`: most callers know better what that means.
    """
    named = os.fspath(place) or _file_of(error)
    code = cause_of(error)
    if code == errno.ENOENT or (code is None and _names_no_cause(error)):
        code = _cause_of_opening(named) or code  # safetensors calls every failure a missing file
    if code is None or (code == errno.ENOENT and not tell_missing):
        return None
    words, hint = _SENTENCES[code]
    if code == errno.ENOMEM and not named:
        return MachineError("out of memory", hint=hint)
    somewhere = "the workspace" if disk_is_full(error) else "a file"
    return MachineError(words.format(place=repr(str(named)) if named else somewhere), hint=hint)


def explained(error: BaseException) -> BaseException:
    """The error to show: `error` itself, or the sentence for a system error that is not ours."""
    if isinstance(error, MiCrowError):
        return error
    return machine_error(error, tell_missing=True) or error


def sentence_of(error: BaseException) -> str:
    """One line about `error` for the user."""
    shown = explained(error)
    if isinstance(shown, MiCrowError):
        return shown.sentence
    if isinstance(shown, OSError) and shown.strerror:  # as text it begins with "[Errno 20]"
        words = shown.strerror[:1].lower() + shown.strerror[1:]
        named = shown.filename2 or shown.filename
        return f"{os.fsdecode(named)!r} cannot be used ({words})" if _is_path(named) else words
    return str(shown)


def _is_path(named: object) -> TypeGuard[str | bytes | os.PathLike[str]]:
    """Whether it is the name of a file: an open one may be named by its number."""
    return isinstance(named, str | bytes | os.PathLike)


def out_of_memory(error: BaseException) -> bool:
    """Whether this machine or a device ran out of memory."""
    return cause_of(error) == errno.ENOMEM


def forget_locals(error: BaseException) -> None:
    """Frees what the calls that failed were working on: an error keeps it, tensors too."""
    for one in _chain(error):
        traceback.clear_frames(one.__traceback__)


def disk_is_full(error: BaseException) -> bool:
    """Whether a disk or a quota is full."""
    return cause_of(error) in (errno.ENOSPC, errno.EDQUOT)


def _own_cause(error: BaseException) -> int | None:
    """The cause named by one error of a chain."""
    if isinstance(error, MiCrowError):
        return None
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryException":
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return _known(error.errno)
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT
    if (code := _sqlite_code(error)) is not None:
        return _SQLITE.get(code)
    if type(error).__module__.partition(".")[0] in _ANSWERS:
        return None
    text = str(error)
    if isinstance(error, RuntimeError | ImportError) and _NO_MEMORY.search(text):
        return errno.ENOMEM
    if match := _NUMBERED.search(text):
        return _known(int(next(number for number in match.groups() if number)))
    if match := _WORDED.search(text):
        return _known(_CODE_OF_WORDS[match[0]])
    return None


def _sqlite_code(error: BaseException) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None


def _names_no_cause(error: BaseException) -> bool:
    """Whether a library could not open a file and does not say why."""
    return _sqlite_code(error) == _SQLITE_CANNOT_OPEN or type(error).__name__ == "IOException"


def _cause_of_opening(place: str) -> int | None:
    """Why a file cannot be opened for reading; None when it can."""
    if not place:
        return None
    try:
        os.close(os.open(place, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return _known(error.errno or 0)
    except ValueError:  # not a file name
        return None
    return None


def _known(code: int) -> int | None:
    code = _SAME.get(code, code)
    return code if code in _SENTENCES else None


def _file_of(error: BaseException) -> str:
    """The file named by a system error; '' without one."""
    for one in _chain(error):
        if isinstance(one, OSError) and one.filename is not None:
            name = one.filename2 if one.filename2 is not None else one.filename
            text = os.fsdecode(name) if isinstance(name, str | bytes) else str(name)
            return _TEMPORARY.sub("", text)  # of the file that was to be written
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, each once: chains can go round in a circle."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
