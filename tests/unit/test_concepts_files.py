"""Names of latents from Python, CSV and JSON, and top texts to files."""

import csv
import json

import numpy
import pytest

from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.concept_files import (
    NamedConcept,
    write_top_texts_csv,
    write_top_texts_json,
)
from tests.helpers.steering_fixture import LATENTS, tiny_sae

NAMES = {
    3: [NamedConcept("ferries", 0.9), NamedConcept("boats")],
    7: [NamedConcept("naïve, “12 €”")],
}


def test_concepts_come_from_python_json_and_csv_alike(tmp_path):
    data = {
        3: [{"name": "ferries", "confidence": 0.9}, {"name": "boats"}],
        7: {"name": "naïve, “12 €”"},
    }
    as_json, as_csv = tmp_path / "names.json", tmp_path / "names.csv"
    as_json.write_text(json.dumps({str(key): value for key, value in data.items()}), "utf-8")
    as_csv.write_text(
        'feature,name,confidence\n3,ferries,0.9\n3,boats,\n7,"naïve, “12 €”",1\n', "utf-8"
    )
    for load, source in (
        ("load_concepts", data),
        ("load_concepts_from_json", as_json),
        ("load_concepts_from_csv", str(as_csv)),
    ):
        concepts = tiny_sae().concepts
        getattr(concepts, load)(source)
        assert concepts.names == NAMES


def test_the_columns_of_the_published_guides_are_read(tmp_path):
    path = tmp_path / "names.csv"
    path.write_text("neuron_idx,concept_name,score\n3,ferries,0.9\n")
    concepts = tiny_sae().concepts
    concepts.load_concepts_from_csv(path)
    assert concepts.names == {3: [NamedConcept("ferries", 0.9)]}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("names.json", "[1, 2]", "not an object"),
        ("names.json", "{", "not valid JSON"),
        ("names.json", '{"3": [{"title": "x"}]}', "concepts of feature '3'"),
        ("names.json", '{"x": [{"name": "x"}]}', "concepts of feature 'x'"),
        ("names.json", f'{{"{LATENTS}": [{{"name": "x"}}]}}', "out of range"),
        ("names.json", '{"3": [{"name": null}]}', "needs a name"),
        ("names.json", '{"3": [{"name": "x", "confidence": NaN}]}', "not finite"),
        ("names.json", '{"3": ["ferries"]}', "concepts of feature '3'"),
        ("names.json", '{"3.5": [{"name": "x"}]}', "concepts of feature '3.5'"),
        ("names.csv", "", "no column 'feature'"),
        ("names.csv", "feature,title\n3,x\n", "no column 'name'"),
        ("names.csv", "feature|name\n3|x\n", "no column 'feature'"),
        ("names.csv", f'feature,name\n3,"{"x" * 200_000}"\n', "field larger"),
        ("names.csv", "feature,name,confidence\n3,x,nan\n", "line 2"),
        ("names.csv", "feature,name\n3,  \n", "line 2"),
        ("names.csv", "feature,name\n-1,x\n", "out of range"),
        ("names.csv", "feature,name\n3,\n", "line 2"),
        ("names.csv", "feature,name\n3,x\nfour,y\n", "line 3"),
        ("names.csv", "feature,name,confidence\n3,x,high\n", "line 2"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_names_nothing(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_text(content)
    concepts = tiny_sae().concepts
    load = (
        concepts.load_concepts_from_json
        if name.endswith("json")
        else concepts.load_concepts_from_csv
    )
    with pytest.raises(UserError, match=sentence):
        load(path)
    assert concepts.names == {}


@pytest.mark.parametrize(
    "data",
    [
        [{"name": "x"}],
        None,
        {3.7: [{"name": "x"}]},
        {True: [{"name": "x"}]},
        {None: [{"name": "x"}]},
        {3: "ferries"},
        {3: [{"name": " "}]},
        {3: [{"name": "x"}], LATENTS: [{"name": "y"}]},
    ],
)
def test_concepts_from_python_that_are_wrong_are_refused_and_name_nothing(data):
    concepts = tiny_sae().concepts
    with pytest.raises(UserError):
        concepts.load_concepts(data)
    assert concepts.names == {}


def test_a_feature_may_be_any_whole_number():
    concepts = tiny_sae().concepts
    concepts.load_concepts({numpy.int64(3): [{"name": "x"}], "4": [{"name": "y"}]})  # type: ignore[dict-item]
    assert concepts.names == {3: [NamedConcept("x")], 4: [NamedConcept("y")]}


def test_what_is_no_text_is_said_to_be_so(tmp_path):
    (tmp_path / "names.csv").write_bytes(b"\xff\xfef\x00")
    for path, says in ((tmp_path, "Is a directory"), (tmp_path / "names.csv", "not UTF-8 text")):
        with pytest.raises(UserError, match=says):
            tiny_sae().concepts.load_concepts_from_csv(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NotFoundError, match=r"gone\.json"):
        tiny_sae().concepts.load_concepts_from_json(tmp_path / "gone.json")


def test_top_texts_are_written_whole(tmp_path):
    texts = {2: [("a, “b”\nc", 1.5), ("d", 0.25)], 9: [("=1+1", 3.0)]}
    write_top_texts_json(tmp_path / "new" / "top.json", texts)
    write_top_texts_csv(tmp_path / "top.csv", texts)
    assert json.loads((tmp_path / "new" / "top.json").read_text("utf-8")) == {
        "2": [{"text": "a, “b”\nc", "activation": 1.5}, {"text": "d", "activation": 0.25}],
        "9": [{"text": "=1+1", "activation": 3.0}],
    }
    with (tmp_path / "top.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["feature"], row["rank"], row["text"]) for row in rows] == [
        ("2", "0", "a, “b”\nc"),
        ("2", "1", "d"),
        ("9", "0", "'=1+1"),  # no spreadsheet runs it
    ]
    assert float(rows[0]["activation"]) == 1.5
