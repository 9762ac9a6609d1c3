"""A chat model as judge: asked over HTTP, its ratings read strictly, its failures said."""

import json
import threading
from collections import Counter

import pytest

from mi_crow.errors import MachineError, UserError
from mi_crow.language_model.endpoint import KEYS, Endpoint, RubbishError
from mi_crow.mechanistic.steering.interventions import parse_intervention
from mi_crow.mechanistic.steering.loading import load_for_work
from mi_crow.mechanistic.steering.measure.config import Judging, Rating, SweepConfig, Trial
from mi_crow.mechanistic.steering.measure.ratings import Rated, Rater, rating_in
from mi_crow.mechanistic.steering.measure.sweep import run_sweep
from tests.helpers.index_fixture import make_index
from tests.helpers.local_server import Answers, LocalServer, served
from tests.helpers.session_fixture import SAE_ID, add_tiny_sae
from tests.helpers.steering_fixture import LATENTS, tiny_sae


class Server(LocalServer):
    """A chat endpoint on this machine that answers as a test tells it to."""

    def __init__(self) -> None:
        super().__init__(_Answer)
        self.answers: list[tuple[int, str, dict[str, str]]] = []  # before `usual`
        self.usual = lambda question: "Fine.\nRating: [[2]]"
        self.wait: threading.Event | None = None
        self.asked: list[dict] = []
        self.keys: list[str | None] = []

    @property
    def url(self) -> str:
        return f"{super().url}/v1"

    def next(self, body: dict) -> tuple[int, str, dict[str, str]]:
        if self.answers:
            return self.answers.pop(0)
        told = self.usual(body["messages"][0]["content"])
        return 200, json.dumps({"choices": [{"message": {"content": told}}]}), {}


class _Answer(Answers):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = json.loads(self.body())
        self.server.asked.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        if self.server.wait is not None:
            self.server.wait.wait(60)
        code, text, headers = self.server.next(body)
        self.send(code, text.encode(), headers)


@pytest.fixture
def server(monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with served(Server()) as found:
        yield found
        if found.wait is not None:
            found.wait.set()


@pytest.fixture
def pauses():
    return []


@pytest.fixture
def endpoint(server, pauses):
    return Endpoint(server.url, "judge", 5.0, pauses.append)


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("Rating: [[2]]", 2),
        ("It is about rain.\n\n**Rating: [[1]]**\n", 1),
        ("[[0]]", 0),
        ("rating [[2]].", 2),
    ],
)
def test_a_rating_is_the_last_line(answer, rating):
    assert rating_in(answer) == rating


@pytest.mark.parametrize(
    "answer",
    ["", "2", "Rating: 2", "Rating: [[3]]", "Rating: [[2]] or so", "[[1]]\n[[2]]", "[[2]]\nbye"],
)
def test_anything_else_is_no_rating(answer):
    with pytest.raises(RubbishError):
        rating_in(answer)


def test_the_overall_rating_is_the_harmonic_mean():
    assert Rated(2, 2, 2).overall == 2
    assert Rated(1, 2, 2).overall == pytest.approx(3 / (1 + 0.5 + 0.5))
    assert Rated(2, 0, 2).overall == 0


def test_a_busy_server_is_asked_again_after_as_long_as_it_says(server, endpoint, pauses):
    server.answers = [
        (429, "", {"Retry-After": "7"}),
        (503, "", {}),
        (429, "", {"Retry-After": "x"}),
    ]
    assert endpoint.ask("?") == "Fine.\nRating: [[2]]"
    assert pauses == [7.0, 2.0, 4.0]
    server.answers = [(429, "", {"Retry-After": "999999"})] * 5
    with pytest.raises(MachineError, match="answered 429, 5 times"):
        endpoint.ask("?")
    assert max(pauses) == 60


def test_a_silent_server_is_given_up(server, pauses):
    server.wait = threading.Event()
    with pytest.raises(MachineError, match=r"gave no whole answer within 0\.05 s, 5 times"):
        Endpoint(server.url, "judge", 0.05, pauses.append).ask("?")
    assert len(pauses) == 4


def test_what_will_not_change_is_said_at_once(server, endpoint, pauses):
    for answer, sentence in (
        ((401, "", {}), "refuses the key"),
        ((404, "", {}), "has no model 'judge'"),
        ((400, "too \x1b[31m long", {}), "answered 400: too ␛"),
        ((302, "", {"Location": "http://127.0.0.1:1/"}), "answered 302"),
    ):
        server.answers = [answer]
        with pytest.raises(UserError, match=sentence.replace("[", r"\[")):
            endpoint.ask("?")
    for text in ("not JSON", "{}", '{"choices": [{"message": {"content": 3}}]}'):
        server.answers = [(200, text, {})]
        with pytest.raises(RubbishError):
            endpoint.ask("?")
    gone = Endpoint("http://127.0.0.1:9", "judge", 5.0, pauses.append)
    with pytest.raises(UserError, match="cannot be reached"):
        gone.ask("?")
    assert not pauses


def test_the_key_is_that_of_the_environment_and_never_unencrypted(server, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    monkeypatch.setenv("MI_CROW_LLM_KEY", "first")
    endpoint.ask("?")
    assert server.keys == ["Bearer first"]
    with pytest.raises(UserError, match="unencrypted"):
        Rating("http://example.org/v1", "judge")
    with pytest.raises(UserError, match="must not contain a password or a key"):
        Rating("https://me:secret@example.org/v1", "judge")
    assert Rating("https://example.org/v1", "judge").parallel == 8


def test_each_text_is_rated_once_and_rubbish_is_counted(server, endpoint):
    texts = [("Once", f"text {number}") for number in range(20)]
    server.usual = lambda question: "no" if "text 7\n" in question else "Rating: [[1]]"
    rater = Rater(endpoint, "rain", parallel=4)
    found = rater.figures([*texts, texts[0]])
    assert found == {"concept": 1, "instruction": 1, "fluency": 1, "overall": 1, "unrated": 1}
    asked = Counter(body["messages"][0]["content"] for body in server.asked)
    # Three questions a text; those about text 7 were put twice.
    assert len(asked) == 60
    assert sum(asked.values()) == 63
    rater.rate(texts)
    assert sum(asked.values()) == len(server.asked)
    server.usual = lambda question: "no"
    with pytest.raises(UserError, match="gave no rating for 1 of 1 texts"):
        Rater(endpoint, "rain").figures(texts[:1])


def test_the_best_of_a_sweep_is_the_one_that_is_rated_best(
    server, workspace, tiny_model_dir, monkeypatch
):
    add_tiny_sae(workspace, tiny_model_dir)
    make_index(workspace, SAE_ID, n_features=LATENTS)
    tiny_sae(model=str(tiny_model_dir)).save(workspace.sae_dir(SAE_ID))
    monkeypatch.setenv("MI_CROW_LLM_KEY", "sesame")
    config = SweepConfig(
        SAE_ID,
        (parse_intervention("3=floor 1norm").as_json(),),
        strengths=(0.5, 1.0),
        most_ratio=1e6,
        judging=Judging(label="sailing"),
        trial=Trial(prompts=("The ferry",), n=2, max_new_tokens=4, documents=0, control=False),
        rating=Rating(server.url, "judge", parallel=2),
        device="cpu",
    )
    plain = load_for_work(workspace, SAE_ID, "cpu")
    result = run_sweep(workspace, config, None, plain)
    assert result["overall"] == result["overall_baseline"] == 2
    assert all("Concept: sailing" in b["messages"][0]["content"] for b in server.asked[::3][:1])
    (path,) = (workspace.root / "steering").glob("*.json")
    assert "sesame" not in path.read_text()
