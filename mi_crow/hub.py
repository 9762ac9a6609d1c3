"""The Hugging Face Hub: whether it answers, quiet downloads, and its errors in one sentence."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from mi_crow.causes import machine_error
from mi_crow.errors import MiCrowError, NotFoundError, UserError

_PATIENCE = 4.0  # seconds to wait for the hub's first answer


def hub_answers() -> bool:
    """True when the hub can be reached now.

    One request without retries: the Hub's client would try each file for 20 seconds before giving
    up. Never asks when HF_HUB_OFFLINE is set.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if is_offline():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_PATIENCE)
    except Exception:  # whatever goes wrong: the network is not available
        return False
    return True


def is_offline() -> bool:
    """True when the environment says that the hub is not to be asked."""
    from huggingface_hub import constants

    return constants.is_offline_mode() or os.environ.get("HF_HUB_OFFLINE") == "1"


def hub_error(what: str, error: BaseException, *, asked: bool) -> MiCrowError:
    """The error for a failure to get `what` (as in "model 'org/name'") from the hub.

    `asked` is False when only the local cache was looked at.
    """
    names = _names(error)
    text = " ".join(str(link) for link in _chain(error)).lower()
    # The Hub says that a missing repository may be "a private or gated repo".
    absent = "RepositoryNotFoundError" in names
    if "GatedRepoError" in names or ("gated repo" in text and not absent):
        return UserError(
            f"{what} is gated",
            hint="ask for access on its hub page, then run `hf auth login` (or set HF_TOKEN)",
        )
    if (refused := machine_error(error)) is not None:
        return refused
    if "RevisionNotFoundError" in names or "not a valid git identifier" in text:
        return NotFoundError(f"{what} has no such revision", hint="look at its hub page")
    if not asked:
        return NotFoundError(
            f"{what} is not in the local cache, and the hub was not reached",
            hint="check the name and the network (or --offline and HF_HUB_OFFLINE), "
            "or give a local path",
        )
    if "RepositoryNotFoundError" in names or "not a valid model identifier" in text:
        return NotFoundError(
            f"{what} is not on the hub",
            hint="check the name; for a private one run `hf auth login` (or set HF_TOKEN)",
        )
    return UserError(f"{what} cannot be loaded ({first_line(error)})")


def broken_off(what: str, error: BaseException, *, goes_on: bool = True) -> MiCrowError:
    """The error for a download of `what` that the hub began and did not finish; `goes_on`: the next
    one begins where it stopped."""
    refused = hub_error(what, error, asked=True)
    if refused.hint or _names(error) & {"EntryNotFoundError", "RemoteEntryNotFoundError"}:
        return refused
    return UserError(
        f"the download of {what} broke off ({first_line(error)})",
        hint="run it again: it goes on where it stopped"
        if goes_on
        else "run it again: what was downloaded of this file cannot be gone on with",
    )


def why_unreached() -> str:
    """Why `hub_answers` said no."""
    if is_offline():
        return "the hub is not asked (HF_HUB_OFFLINE)"
    return "the hub was not reached"


def publishing_error(error: BaseException, repository: str) -> MiCrowError:
    """The error for a failure to push to a repository; a token is never part of it."""
    names = _names(error)
    text = " ".join(str(link) for link in _chain(error)).lower()
    if "401" in text or "403" in text or "LocalTokenNotFoundError" in names:
        return UserError(
            f"you may not write to {repository}",
            hint="run `hf auth login` with a token that can write (or set HF_TOKEN)",
        )
    if (refused := machine_error(error)) is not None:
        return refused
    if names & {"ConnectError", "ConnectTimeout", "OfflineModeIsEnabled", "ConnectionError"}:
        return UserError(
            f"the hub was not reached, nothing was pushed to {repository}",
            hint="check the network (or HF_HUB_OFFLINE); --dry-run shows the files",
        )
    if "RevisionNotFoundError" in names:
        return NotFoundError(f"{repository} has no such revision", hint="make the branch first")
    return UserError(f"nothing was pushed to {repository} ({first_line(error)})")


@contextmanager
def quiet_downloads() -> Iterator[None]:
    """Hides progress bars and log lines of the Hub's client inside the block."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    bars = not are_progress_bars_disabled()
    level = logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            enable_progress_bars()


def first_line(error: BaseException) -> str:
    """The first line of an error's text, to quote in a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _names(error: BaseException) -> set[str]:
    return {type(link).__name__ for link in _chain(error)}


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__
