"""Features as a page or as JSON: whole or not at all, harmless whatever is in them."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mi_crow.cli import main
from mi_crow.errors import UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.mechanistic.features.records import FeatureRow
from mi_crow.mechanistic.features.report.histogram import histogram_svg
from mi_crow.mechanistic.features.report.page import _table_row
from mi_crow.mechanistic.features.report.style import STYLE
from mi_crow.mechanistic.features.report.write import write_features
from mi_crow.store.workspace import Workspace
from tests.helpers.awkward_index import DEAD, FEATURE, SAE, make_awkward_index
from tests.helpers.hostile_workspace import obeyed

HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\" onload='x' \u202e&amp;"
_KNOWN = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "h1", "h2"),
    *("h3", "dl", "dt", "dd", "div", "span", "b", "p", "a", "ul", "ol", "li", "table", "thead"),
    *("tbody", "tr", "th", "td", "article", "section", "code", "svg", "rect", "line"),
    *("text", "details", "summary"),
}


class Reader(HTMLParser):
    """What a browser would see: tags, attributes and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = Workspace.open(tmp_path_factory.mktemp("workspace") / "w")
    make_awkward_index(workspace)
    annotations = Annotations(workspace.annotations_path)
    annotations.set_concept(SAE, FEATURE, HOSTILE, note=HOSTILE, tags=[HOSTILE], source=HOSTILE)
    return workspace.root


@pytest.fixture
def store(made: Path) -> FeatureStore:
    workspace = Workspace.open(made)
    return FeatureStore.open(workspace, SAE, Annotations(workspace.annotations_path))


@pytest.mark.slow
def test_a_page_runs_nothing_that_its_texts_say(store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "features.html"
    assert write_features(store, range(64), path) == 64
    page = path.read_text(encoding="utf-8")
    read = Reader(page)
    assert set(read.tags) <= _KNOWN
    assert not [name for name, _ in read.attributes if name.startswith("on") or name == "src"]
    assert all(value.startswith("#") for name, value in read.attributes if name == "href")
    policies = [value for name, value in read.attributes if name == "content"]
    assert any(value.startswith("default-src 'none'") for value in policies)
    assert not obeyed(page.replace("\n", ""))
    assert "<script>alert(1)</script>" in read.text  # it is shown as it is


def test_a_page_says_what_the_index_knows(store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "features.html"
    write_features(store, [FEATURE, DEAD], path)
    read = Reader(path.read_text(encoding="utf-8"))
    assert {f"f{FEATURE}", f"f{DEAD}"} <= {value for name, value in read.attributes}
    assert "never on the indexed tokens" in read.text
    assert "Promoted tokens" in read.text
    assert "Top activations" in read.text
    best = store.examples(FEATURE, limit=1)[0]
    assert f"{best.activation:#.3g}" in read.text


@pytest.mark.slow
def test_related_features_have_their_names_and_every_link_its_place(
    store: FeatureStore, tmp_path: Path
) -> None:
    write_features(store, range(64), path := tmp_path / "features.html")
    page = path.read_text()
    read = Reader(page)
    places = {value for name, value in read.attributes if name == "id"}
    assert {value[1:] for name, value in read.attributes if name == "href"} <= places
    nearest = {one.feature for one in store.detail(FEATURE).neighbours}
    names = [row.meaning for row in store.rows(sorted(nearest)) if row.meaning]
    section = page.partition(f'id="f{FEATURE}"')[2].partition("</article>")[0]
    related = Reader(section.partition("Nearest (cosine)")[2]).text
    assert names
    assert all(name in related for name in names)


def test_a_narrow_page_leaves_columns_out_and_words_whole() -> None:
    row = _table_row(FeatureRow(3, 5, 0.1, 2.5, 1.5, None, None, None, proposed="rain"))
    assert '<td class="more">5</td>' in row
    assert '<td class="more">1.50</td>' in row
    narrow = STYLE.partition("@media (max-width:40rem)")[2]
    assert ".all .more{display:none}" in narrow
    assert "min-width" in STYLE.partition(".text{")[2].partition("}")[0]


def test_the_table_of_a_page_has_proposed_names_where_there_is_no_other() -> None:
    row = FeatureRow(3, 9, 0.1, 2.0, 1.0, None, "weather", 0.9, proposed="“rain” & hail")
    assert "“rain” &amp; hail" in _table_row(row)
    assert "storms" in _table_row(replace(row, concept="storms"))


def test_json_has_all_of_them(store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "features.json"
    write_features(store, [FEATURE, DEAD], path)
    read = json.loads(path.read_text(encoding="utf-8"))
    first = read["features"][0]
    assert [one["feature"] for one in read["features"]] == [FEATURE, DEAD]
    assert first["concepts"][0]["note"] == HOSTILE
    assert first["examples"]
    assert first["decoder_norm"] is not None


def test_a_file_is_replaced_only_when_that_is_asked_for(
    store: FeatureStore, tmp_path: Path
) -> None:
    path = tmp_path / "features.html"
    path.write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        write_features(store, [FEATURE], path)
    assert path.read_text() == "mine"
    write_features(store, [FEATURE], path, overwrite=True)
    assert path.read_text().startswith("<!doctype html>")


def test_what_fails_on_the_way_leaves_the_old_file(store: FeatureStore, tmp_path: Path) -> None:
    path = tmp_path / "features.html"
    path.write_text("mine")
    with pytest.raises(Exception, match="9999"):
        write_features(store, [FEATURE, 9999], path, overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["features.html"]
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["features.pdf", "features", "folder.html"])
def test_a_path_that_is_no_report_is_refused(
    store: FeatureStore, tmp_path: Path, name: str
) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(UserError):
        write_features(store, [FEATURE], tmp_path / name, overwrite=True)


def test_too_many_or_none_are_refused(store: FeatureStore, tmp_path: Path) -> None:
    for features in ([], list(range(100_000))):
        with pytest.raises(UserError, match="features"):
            write_features(store, features, tmp_path / "features.html")


def test_the_command_line_writes_a_report(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.html"
    words = ["features", "sort:max", "--limit", "3", "--report", str(path)]
    assert main([*words, "--workspace", str(made), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(path), "features": 3}
    assert path.read_text().count("<article ") == 3
    assert main([*words, "--workspace", str(made)]) != 0
    assert "exists already" in capsys.readouterr().err


def test_a_histogram_has_numbers_on_both_axes() -> None:
    drawing = histogram_svg([1000, 100, 0, 1], [0.0, 1.0, 2.0, 3.0, 4.0])
    assert drawing.count("<rect") == 4
    texts = re.findall(r">([^<]+)</text>", drawing)
    assert {"0", "4", "2", "1,000"} <= set(texts)
    assert histogram_svg([0, 0], [0.0, 1.0, 2.0]) == ""


def test_every_text_of_the_page_can_be_read_by_day_and_by_night() -> None:
    for block in re.findall(r":root\{([^}]+)\}", STYLE):
        colours = dict(re.findall(r"--(\w+):(#\w+);", block))
        pairs = [(colours[f"h{n}"], colours[f"t{n}"]) for n in range(1, 8)]
        texts = ("ink", "muted", "link", "name")
        pairs += [(colours[ground], colours[text]) for ground in ("ground",) for text in texts]
        assert min(contrast(*pair) for pair in pairs) >= 4.5, pairs


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        shares = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
