"""The form of explanations by a chat model: who judges them."""

from pathlib import Path

from mi_crow.cli import main
from mi_crow.cli.commands.meaning import explain
from mi_crow.cli.entry import parse
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import TOPICS, make_index
from tests.helpers.word_vectors import model2vec_folder
from tests.tui.driving import trouble_of
from tui.screens.runs.forms.explaining import ExplanationsForm
from tui.screens.runs.forms.finding import Situation


def test_an_embedding_model_judges_without_requests(tmp_path: Path, monkeypatch, capsys) -> None:
    workspace = Workspace.open(tmp_path / "w")
    make_index(workspace, "one")
    form = ExplanationsForm(Situation(workspace, (), tuple(workspace.list_saes())))
    known = {one.name: one.text for one in form.fields}
    texts = known | {"sae_id": "one", "explainer": "http://localhost:9/v1", "model": "m"}
    embeddings = texts | {"judge": "embeddings"}
    assert trouble_of(form.study(embeddings)).startswith("no embedding model is known")
    folder = model2vec_folder(tmp_path / "vectors", list(TOPICS.values()))
    assert main(["config", "set", "semantic.model", str(folder)]) == 0
    by_chat, by_vectors = form.study(texts), form.study(embeddings)
    assert not trouble_of(by_vectors)
    requests = [int(one.lines[0].split()[-2].replace(",", "")) for one in (by_chat, by_vectors)]
    assert requests[0] > 5 * requests[1] > 0
    asked: list[object] = []
    monkeypatch.setattr(explain, "run_job", lambda *all: asked.append(all[2]) or 0)
    program, *words = by_vectors.command.split()
    assert (program, explain.run(parse(words))) == ("mi-crow", 0)
    (config,) = asked
    assert config.judge == f"embeddings:{folder}"  # pyright: ignore[reportAttributeAccessIssue]
