"""What goes wrong at the Hugging Face Hub, in one sentence each."""

import errno

import pytest

from mi_crow.errors import NotFoundError
from mi_crow.hub import hub_error, publishing_error, quiet_downloads


def named(kind: str, text: str = "no") -> BaseException:
    """An error like the hub client's own, which need a response to be made."""
    return type(kind, (OSError,), {})(text)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (named("RevisionNotFoundError"), "model 'a/b' has no such revision; look at its hub page"),
        (OSError("x is not a valid git identifier"), "model 'a/b' has no such revision"),
        (OSError(errno.ENOSPC, "No space left on device", "/c"), "is full"),
        (ValueError("x is not a valid model identifier"), "model 'a/b' is not on the hub"),
    ],
)
def test_what_cannot_be_loaded(error: BaseException, says: str) -> None:
    assert says in hub_error("model 'a/b'", error, asked=True).sentence


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError("403 Forbidden"), "you may not write to o/r; run `hf auth login`"),
        (named("LocalTokenNotFoundError"), "you may not write to o/r"),
        (OSError(errno.ENOSPC, "No space left on device", "/c"), "is full"),
        (named("ConnectTimeout"), "the hub was not reached, nothing was pushed to o/r"),
        (named("RevisionNotFoundError"), "o/r has no such revision; make the branch first"),
        (ValueError("first\nsecond"), "nothing was pushed to o/r (first)"),
        (ValueError(), "nothing was pushed to o/r (ValueError)"),
    ],
)
def test_what_cannot_be_pushed(error: BaseException, says: str) -> None:
    found = publishing_error(error, "o/r")
    assert says in found.sentence
    assert isinstance(found, NotFoundError) == ("make the branch" in says)


def test_a_cause_that_goes_round_in_a_circle_ends() -> None:
    first, second = ValueError("one"), named("ConnectError")
    first.__cause__, second.__cause__ = second, first
    assert "the hub was not reached" in publishing_error(first, "o/r").sentence


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_are_as_before(shown: bool) -> None:
    from huggingface_hub import utils

    before = utils.are_progress_bars_disabled()
    try:
        utils.enable_progress_bars() if shown else utils.disable_progress_bars()
        with quiet_downloads():
            assert utils.are_progress_bars_disabled()
        assert utils.are_progress_bars_disabled() != shown
    finally:
        utils.disable_progress_bars() if before else utils.enable_progress_bars()
