"""Examples as windows, lines, aligned at the peak and whole documents; the histogram's axes."""

import pytest

from mi_crow.mechanistic.features.records import Example
from tui.widgets.example_lines import Drawing, folded
from tui.widgets.histogram import histogram_chart
from tui.widgets.lists.feature_columns import score

TOKENS = [" the", " old", " mast", " is", "\n", " high"]


def example(document: int, tokens: list[str], peak: int) -> Example:
    acts = [0.0] * len(tokens)
    acts[peak] = 4.0
    text = "Before." + "".join(tokens) + " After."
    return Example(document, peak + 3, 4.0, 3, tokens, acts, text, "sea", begin=7)


def test_the_same_text_is_shown_once_with_its_count():
    shown = folded([example(1, TOKENS, 2), example(2, TOKENS[1:], 1), example(3, TOKENS, 2)])
    assert [(one.example.document, one.times) for one in shown] == [(1, 2), (2, 1)]


def test_aligned_examples_have_their_peak_in_one_column():
    drawing = Drawing(4.0, 40)
    lines = [drawing.aligned(one).plain for one in folded([example(1, TOKENS, 2)])]
    lines += [drawing.aligned(one).plain for one in folded([example(2, TOKENS[1:], 1)])]
    assert lines[0].index("mast") == lines[1].index("mast")
    assert all(len(line) <= 40 and "⏎ high" in line for line in lines)


def test_a_document_shows_what_stands_around_the_window():
    lines = Drawing(4.0, 60).document(folded([example(1, TOKENS, 2)])[0])
    text = "\n".join(line.plain for line in lines)
    assert "Before. the old mast is" in text
    assert text.endswith("high After.")


def test_a_histogram_has_numbers_on_its_axes():
    lines, values = histogram_chart([100, 10, 1, 0], [0.0, 1.0, 2.0, 3.0, 4.0], 40, 3)
    assert [label.strip() for label, _ in lines] == ["100", "", "1"]
    assert values.split() == ["0.0", "2.0", "3.0"]
    assert histogram_chart([0, 0], [0.0, 1.0, 2.0], 20, 3) == ([], "")


@pytest.mark.slow
def test_what_is_not_perfect_never_reads_as_one():
    assert score(0.9997) == "0.999"
    assert score(1.0) == "1.00"
