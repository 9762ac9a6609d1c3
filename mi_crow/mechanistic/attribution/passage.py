"""Which part of a text the model reads when it is asked about one token of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mi_crow.errors import UserError
from mi_crow.mechanistic.attribution.target import position_of
from mi_crow.mechanistic.steering.inspection import check_text, read_text

if TYPE_CHECKING:
    from mi_crow.language_model import LanguageModel
    from mi_crow.language_model.tokenize import Encoding


class Passage(NamedTuple):
    """What the model reads at once, and where in it the token is that is asked about."""

    encoding: "Encoding"  # [1, n]
    position: int
    start: int  # tokens of the text before it


@dataclass(frozen=True)
class Passages:
    """A text as the model reads it: all at once, cut to the context, or in windows of it."""

    encodings: "tuple[Encoding, ...]"
    total: int  # tokens of the whole text
    read: int

    @property
    def places(self) -> int:
        """The tokens of all passages, as positions count them."""
        return sum(one.input_ids.shape[1] for one in self.encodings)

    @property
    def longest(self) -> int:
        """The tokens of the longest passage."""
        return max(one.input_ids.shape[1] for one in self.encodings)

    def at(self, position: int | None) -> Passage:
        """The passage with a token of the text, counted from the end where it is negative; None is
        the last. Raises UserError, also where the token is not read because the text is cut."""
        if position is None or not 0 <= position < self.places:
            self.check_is_read()
        place, start = position_of(self.places, position), 0
        rest = iter(self.encodings)
        passage = next(rest)
        while place - start >= passage.input_ids.shape[1]:
            start += passage.input_ids.shape[1]
            passage = next(rest)
        return Passage(passage, place - start, start)

    def check_is_read(self) -> None:
        """Raises UserError for a text that is cut."""
        if self.read < self.total:
            raise UserError(
                f"the text has {self.total:,} tokens, of which the model reads {self.read:,} at "
                "once",
                hint="shorten it, read it in windows (--windows), or name a token from 0 to "
                f"{self.read - 1} (--token)",
            )


def passages_of(
    lm: "LanguageModel", text: str, bos: str = "auto", windows: bool = False
) -> Passages:
    """`text` cut to the context, or in windows of it. Raises UserError for an empty text."""
    check_text(text)
    read = read_text(lm, text, bos, windows)
    return Passages(tuple(lm.padded([row]) for row in read.rows), read.total, read.read)
