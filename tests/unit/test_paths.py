from pathlib import Path

from mi_crow.paths import expanded


def test_a_home_that_nobody_has_stays_as_it_was_typed() -> None:
    assert expanded("~/texts") == Path.home() / "texts"
    assert expanded("~nobody-of-this-name/texts") == Path("~nobody-of-this-name/texts")
    assert expanded(Path("texts")) == Path("texts")
