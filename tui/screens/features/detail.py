"""The open feature: head, examples with token heat, and what belongs to it."""

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.message import Message

from mi_crow.errors import NotFoundError
from tui.preferences.key_words import key
from tui.screens.features.content import (
    RELATED_COLUMNS,
    TALL,
    elsewhere_rows,
    head_content,
    related_rows,
    side_content,
    whole_side_content,
)
from tui.screens.features.elsewhere import MOST, Elsewhere
from tui.screens.features.reading import DetailRead
from tui.text import count, number
from tui.widgets.detail import DetailScroll
from tui.widgets.example_lines import LOOKS
from tui.widgets.example_list import ExampleList
from tui.widgets.lists.row_list import RowList
from tui.widgets.trouble import Trouble
from tui.widgets.words import Words

if TYPE_CHECKING:
    from mi_crow.mechanistic.features.records import FeatureDetail


class _Made(NamedTuple):
    """What was made of a feature for a room."""

    detail: "FeatureDetail"
    room: object
    side: Content
    head: Content


class SideFacts(DetailScroll):
    """The histogram and the logits: with the focus, to scroll, while the side is zoomed."""

    @property
    def is_zoomed(self) -> bool:
        return self.parent is not None and self.parent.has_class("-zoomed")

    def allow_focus(self) -> bool:
        return self.is_zoomed


class FeatureDetailPane(Container):
    """Shows one DetailRead. The focus goes between the examples and the lists of features."""

    class Wanted(Message):
        """Another feature was chosen here."""

        def __init__(self, feature: int, sae_id: str = "") -> None:
            super().__init__()
            self.feature = feature
            self.sae_id = sae_id  # empty: the open one

    def __init__(self, id: str, classes: str = "") -> None:
        super().__init__(id=id, classes=classes)
        self._read: DetailRead | None = None
        self._made: deque[_Made] = deque(maxlen=2)  # the open feature, and that drawn ahead

    def compose(self) -> ComposeResult:
        yield Trouble(id="feature-trouble")
        yield Words(id="feature-head", markup=False, classes="stays")
        with Horizontal(id="feature-panes"):
            with Vertical(id="feature-texts", classes="pane -across -shown whole"):
                yield Words(id="examples-title", markup=False)
                yield ExampleList(id="examples")
            with Vertical(id="feature-side", classes="pane -across whole"):
                with SideFacts(id="side-scroll"):
                    yield Words(id="side-facts", markup=False)
                with Vertical(id="side-lists"):
                    for name in ("neighbours", "elsewhere", "coactive"):
                        yield Words(classes="related-title", id=f"title-{name}")
                        yield RowList(RELATED_COLUMNS, empty="none", id=f"related-{name}")

    @property
    def feature(self) -> int | None:
        return self._read.feature if self._read else None

    @property
    def shown(self) -> DetailRead | None:
        return self._read

    @property
    def examples(self) -> ExampleList:
        return self.query_one(ExampleList)

    def show(self, read: DetailRead) -> None:
        """Shows a feature; the examples stay where they are when only its names changed."""
        same = (
            self._read is not None
            and self._read.feature == read.feature
            and self._read.examples == read.examples
        )
        self._read = read
        detail = read.detail
        trouble = self.query_one("#feature-trouble", Trouble)
        self.query_one("#feature-panes").display = detail is not None
        if detail is None:
            title = Content.styled(f"#{read.feature}", "bold $primary")
            self.query_one("#feature-head", Words).update(title)
            trouble.show(read.error or NotFoundError(f"feature {read.feature} not found"))
            return
        trouble.clear()
        if not same:
            empty = "No examples in this band." if detail.row.fires else "It never fires."
            self.examples.show(read.examples, detail.row.max_act, empty)
        self.query_one("#examples-title", Words).update(self._title(read))
        self._show_side()
        cofiring = detail.cofiring
        sample = f"\nof {count(cofiring.counted)} sampled tokens" if cofiring.is_sample else ""
        for name, title, measure, related in (
            ("neighbours", "Nearest", " (decoder cosine)", detail.neighbours),
            ("coactive", "Co-activates", f" (Jaccard){sample}", detail.coactivations),
        ):
            words = Content.assemble((title, "bold $primary"), (measure, "$muted"))
            self.query_one(f"#title-{name}", Words).update(words)
            row_list = self.query_one(f"#related-{name}", RowList)
            row_list.bring(*(["layer"] if detail.several else []))
            row_list.set_rows(related_rows([one[:2] for one in related], read.rows))
            if not same:
                row_list.action_first()

    @property
    def elsewhere(self) -> list[str]:
        """The other SAEs in which the feature is looked for."""
        rows = self.query_one("#related-elsewhere", RowList).rows
        return [row.key.rpartition("/")[0] for row in rows]

    def show_elsewhere(self, found: Sequence[Elsewhere]) -> None:
        """The same feature in other SAEs; those that are still being read have no feature yet."""
        rows = self.query_one("#related-elsewhere", RowList)
        self.set_class(bool(found), "-elsewhere")
        if found:
            words = Content.assemble(("In other SAEs", "bold $primary"), (" (cosine)", "$muted"))
            self.query_one("#title-elsewhere", Words).update(words)
            rows.styles.height = min(len(found), 1 if self.size.height < TALL else MOST)
        rows.set_rows(elsewhere_rows(found))
        self._show_side()

    def next_look(self) -> None:
        """Draws the examples in the next way: windows, lines, aligned at the peak, documents."""
        examples = self.examples
        examples.look = LOOKS[(LOOKS.index(examples.look) + 1) % len(LOOKS)]
        if self._read is not None and self._read.detail is not None:
            self.query_one("#examples-title", Words).update(self._title(self._read))

    def _title(self, read: DetailRead) -> Content:
        if read.band == 0:
            lower = f"  {key('features.band')}: lower bands"
            words = ("Top activations", lower if read.bands and read.examples else "")
        else:
            values = [example.activation for example in read.examples]
            span = f"  {number(min(values), 2)} to {number(max(values), 2)}" if values else ""
            words = (f"Band {read.band} of {read.bands}", span)
        look = "" if self.examples.look == "windows" else f"  {self.examples.look}"
        return Content.assemble((words[0], "bold $primary"), (words[1] + look, "$muted"))

    def draw_ahead(self, read: DetailRead, more_lines: int) -> None:
        """Draws what `show` will be asked for soon, when the pane has `more_lines`."""
        if read.detail is None or not self.query_one("#feature-panes").display:
            return
        self.examples.draw_ahead_of(read.examples, read.detail.row.max_act)
        made = self._made_of(read.detail, more_lines)
        self.query_one("#side-facts", Words).draw_ahead(made.side)
        self.query_one("#feature-head", Words).draw_ahead(made.head)

    def _show_side(self) -> None:
        if self._read is None or self._read.detail is None:
            return
        made = self._made_of(self._read.detail)
        self.query_one("#side-facts", Words).update(made.side)
        self.query_one("#feature-head", Words).update(made.head)

    def _made_of(self, detail: "FeatureDetail", more_lines: int = 0) -> _Made:
        scroll, head = self.query_one(SideFacts), self.query_one("#feature-head", Words)
        width = scroll.text_width if scroll.is_zoomed else max(scroll.size.width, 18)
        height, others = self.size.height + more_lines, len(self.elsewhere)
        width, head_width = width - 2, max(head.container_size.width - 2, 20)  # without padding
        room = scroll.is_zoomed, width, height, others, head_width
        for made in self._made:
            if made.detail is detail and made.room == room:
                return made
        if scroll.is_zoomed:
            side = whole_side_content(detail, width)
        else:
            side = side_content(detail, width, height, others)
        made = _Made(detail, room, side, head_content(detail, head_width))
        self._made.append(made)
        return made

    @on(SideFacts.WidthChanged)
    def _side_changed(self, event: SideFacts.WidthChanged) -> None:
        event.stop()
        self._show_side()

    def on_resize(self) -> None:
        self._show_side()

    @on(RowList.Opened)
    def _open_related(self, event: RowList.Opened) -> None:
        event.stop()
        sae_id, _, feature = event.key.rpartition("/")
        if feature:
            self.post_message(self.Wanted(int(feature), sae_id))
