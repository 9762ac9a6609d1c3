"""The open feature: head, examples with token heat, and what belongs to it."""

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from mi_crow.errors import NotFoundError
from tui.screens.features.content import RELATED_COLUMNS, head_content, related_rows, side_content
from tui.screens.features.reading import DetailRead
from tui.text import count, number
from tui.widgets.example_lines import LOOKS
from tui.widgets.example_list import ExampleList
from tui.widgets.lists.row_list import RowList
from tui.widgets.trouble import Trouble


class FeatureDetailPane(Container):
    """Shows one DetailRead. The focus goes between the examples and two lists of features."""

    class Wanted(Message):
        """Another feature was chosen here."""

        def __init__(self, feature: int) -> None:
            super().__init__()
            self.feature = feature

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._read: DetailRead | None = None

    def compose(self) -> ComposeResult:
        yield Trouble(id="feature-trouble")
        yield Static(id="feature-head", markup=False)
        with Horizontal(id="feature-panes"):
            with Vertical(id="feature-texts", classes="pane -across -shown"):
                yield Static(id="examples-title", markup=False)
                yield ExampleList(id="examples")
            with Vertical(id="feature-side", classes="pane -across"):
                yield Static(id="side-facts", markup=False)
                for name in ("neighbours", "coactive"):
                    yield Static(classes="related-title", id=f"title-{name}")
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
            self.query_one("#feature-head", Static).update(title)
            trouble.show(read.error or NotFoundError(f"feature {read.feature} not found"))
            return
        trouble.clear()
        note = next((concept.note for concept in detail.concepts if concept.note), "")
        self.query_one("#feature-head", Static).update(head_content(detail, note))
        if not same:
            empty = "No examples in this band." if detail.row.fires else "It never fires."
            self.examples.show(read.examples, detail.row.max_act, empty)
        self.query_one("#examples-title", Static).update(self._title(read))
        self._show_side()
        cofiring = detail.cofiring
        sample = f"\nof {count(cofiring.counted)} sampled tokens" if cofiring.is_sample else ""
        for name, title, measure, related in (
            ("neighbours", "Nearest", " (decoder cosine)", detail.neighbours),
            ("coactive", "Co-activates", f" (Jaccard){sample}", detail.coactivations),
        ):
            words = Content.assemble((title, "bold $primary"), (measure, "$muted"))
            self.query_one(f"#title-{name}", Static).update(words)
            row_list = self.query_one(f"#related-{name}", RowList)
            row_list.set_rows(related_rows([one[:2] for one in related], read.rows))
            if not same:
                row_list.action_first()

    def next_look(self) -> None:
        """Draws the examples in the next way: windows, lines, aligned at the peak, documents."""
        examples = self.examples
        examples.look = LOOKS[(LOOKS.index(examples.look) + 1) % len(LOOKS)]
        if self._read is not None and self._read.detail is not None:
            self.query_one("#examples-title", Static).update(self._title(self._read))

    def _title(self, read: DetailRead) -> Content:
        if read.band == 0:
            words = ("Top activations", "  b: lower bands" if read.bands and read.examples else "")
        else:
            values = [example.activation for example in read.examples]
            span = f"  {number(min(values), 2)} to {number(max(values), 2)}" if values else ""
            words = (f"Band {read.band} of {read.bands}", span)
        look = "" if self.examples.look == "windows" else f"  {self.examples.look}"
        return Content.assemble((words[0], "bold $primary"), (words[1] + look, "$muted"))

    def _show_side(self) -> None:
        if self._read is None or self._read.detail is None:
            return
        facts = self.query_one("#side-facts", Static)
        width = max(facts.container_size.width, 16)
        facts.update(side_content(self._read.detail, width, self.size.height))

    def on_resize(self) -> None:
        self._show_side()

    @on(RowList.Opened)
    def _open_related(self, event: RowList.Opened) -> None:
        event.stop()
        self.post_message(self.Wanted(int(event.key)))
