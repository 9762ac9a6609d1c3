"""How the lines of Steer are shared."""

from tui.screens.steer.room import fitted_lines, top_lines


def test_the_top_of_a_tall_screen_grows_with_the_stack_and_the_prompt_to_a_fifth():
    assert top_lines(60, 0, 1) == top_lines(60, 4, 3) == 7
    assert top_lines(60, 8, 1) == 10
    assert top_lines(60, 1, 8) == 11
    assert top_lines(60, 40, 40) == 13
    assert top_lines(36, 40, 1) == 8


def test_texts_are_given_lines_at_once_and_lose_them_only_where_many_are_empty():
    assert fitted_lines(12, 12) == 12
    assert fitted_lines(12, 9) == 12  # a little shorter: nothing moves
    assert fitted_lines(12, 8) == 9
    assert fitted_lines(12, 13) == 14
