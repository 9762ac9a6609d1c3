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


@pytest.mark.parametrize("share", ["line", "aligned"])
def test_a_context_that_is_cut_begins_and_ends_with_a_word(share: str):
    tokens = [" un", "believ", "able", " har", "bour", " mast", " sign", "als", " in", "deed"]
    one = folded([example(1, tokens, 5)])[0]
    drawing = Drawing(4.0, 40)
    whole = getattr(Drawing(4.0, 90), share)(one).plain
    assert "… unbelievable harbour mast signals indeed…" in whole  # the document goes on
    for width in range(30, 50):
        line = getattr(Drawing(4.0, width), share)(one).plain
        assert len(line) <= width
        begin, _, end = line[7:].strip().strip("…").partition("mast")
        words = {*begin.split(), *end.split()}
        assert words <= {"unbelievable", "harbour", "signals", "indeed"}
        assert "…" in line.partition("mast")[0]
        assert line.rstrip().endswith("…")
    assert drawing.line(folded([example(1, ["語"] * 60, 30)])[0]).plain.count("語") > 12


def test_a_window_begins_and_ends_with_a_word():
    tokens = [" un", "believ", "able", " har", "bour"] * 6 + [" mast"] + [" sign", "als"] * 8
    one = folded([example(1, tokens, 30)])[0]
    for width in range(30, 60):
        lines = Drawing(4.0, width).windows(one, 2)[1:]
        words = " ".join(line.plain for line in lines).replace("…", " ").split()
        assert set(words) <= {"unbelievable", "harbour", "mast", "signals"}
        assert "mast" in words


def test_a_context_does_not_begin_with_the_end_of_a_sentence():
    tokens = [
        " All",
        " was",
        " lost",
        ".",
        " The",
        ' "',
        "old",
        '"',
        ",",
        " sunk",
        " mast",
        " rose",
    ]
    one = folded([example(1, tokens, 10)])[0]
    begins = {Drawing(4.0, width).line(one).plain[7:].strip() for width in range(20, 60)}
    assert any(line.startswith("… The") for line in begins)
    assert not any(line[1] in ".,;" for line in begins if line[0] == "…")


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
