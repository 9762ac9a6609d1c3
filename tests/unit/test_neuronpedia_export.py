"""Explanations fetched from Neuronpedia's export: a bucket, spoken to as S3 is."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from mi_crow.cli import main
from mi_crow.errors import NotFoundError, UserError
from mi_crow.mechanistic.concepts.annotations import Annotations
from mi_crow.mechanistic.concepts.exchange.fetching import fetch_explanations
from mi_crow.mechanistic.concepts.exchange.published_names import import_with_names, known_as
from mi_crow.mechanistic.sae import SaeMetadata, TopKSae
from mi_crow.mechanistic.sae.formats.config import ImportConfig
from mi_crow.mechanistic.sae.library import published
from mi_crow.mechanistic.sae.library.published import published_as
from mi_crow.store.workspace import Workspace
from tests.helpers.local_server import Answers, LocalServer, served

SOURCE = "jbloom/GPT2-Small-SAEs-Reformatted/blocks.3.hook_resid_pre"
KNOWN = "gpt2-small/3-res-jb"


def batch(*rows: tuple[int, str]) -> bytes:
    lines = (
        {"modelId": "gpt2-small", "layer": "3-res-jb", "index": str(feature), "description": name}
        for feature, name in rows
    )
    return gzip.compress("\n".join(map(json.dumps, lines)).encode())


class Bucket(LocalServer):
    """Files by key; lists two a page, as S3 lists a thousand."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(_Object)
        self.files = files
        self.cut: int = 0  # bytes that each answer lacks at its end
        self.endless: str = ""  # how the next page is called, for ever
        self.listed: int = 0


class _Object(Answers):
    server: Bucket  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        if "list-type" in asked:
            keys = sorted(key for key in self.server.files if key.startswith(asked["prefix"]))
            self.server.listed += 1
            if self.server.endless:
                token = self.server.endless.format(self.server.listed)
                self.send(200, f"<NextContinuationToken>{token}</NextContinuationToken>".encode())
                return
            begin = int(asked.get("continuation-token", "0"))
            page = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys[begin:][:2])
            more = ""
            if begin + 2 < len(keys):
                more = f"<NextContinuationToken>{begin + 2}</NextContinuationToken>"
            self.send(200, f"<ListBucketResult>{page}{more}</ListBucketResult>".encode())
            return
        data = self.server.files.get(url.path.lstrip("/"))
        if data is None:
            self.send(404, b"")
            return
        self.send_head(200, len(data))
        self.wfile.write(data[: len(data) - self.server.cut])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    place = f"v1/{KNOWN}/explanations"
    files = {
        f"{place}/batch-0.jsonl.gz": batch((1, "rain"), (2, "the sea")),
        f"{place}/batch-1.jsonl.gz": batch((3, "ships"), (99, "no such feature")),
        f"{place}/batch-2.jsonl.gz": batch((2, "waves")),
        f"{place}/readme.txt": b"not a batch",
        "v1/gpt2-small/30-res-jb/explanations/batch-0.jsonl.gz": batch((5, "another")),
    }
    with served(Bucket(files)) as server:
        monkeypatch.setenv("MI_CROW_NEURONPEDIA", f"{server.url}/v1")
        yield server


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setenv("MI_CROW_WORKSPACE", str(workspace.root))
    sae = TopKSae(16, 4, 2)
    sae.metadata = SaeMetadata(source=SOURCE)
    sae.save(workspace.saes_dir / "s")
    return workspace


def names(workspace: Workspace) -> set[tuple[int, str, str]]:
    found = Annotations(workspace.annotations_path).concepts("s")
    return {(one.feature, one.name, one.source) for one in found}


ALL = {
    (1, "rain", "neuronpedia"),
    (2, "the sea", "neuronpedia"),
    (2, "waves", "neuronpedia"),
    (3, "ships", "neuronpedia"),
}


def test_an_sae_s_source_says_what_neuronpedia_calls_it(workspace: Workspace) -> None:
    found = published_as(SOURCE)
    assert found is not None
    assert found.neuronpedia == known_as(workspace, "s") == KNOWN
    assert published_as("nobody/nothing") is None
    TopKSae(16, 4, 2).save(workspace.saes_dir / "own")
    with pytest.raises(NotFoundError, match="what Neuronpedia calls SAE 'own' is not known"):
        known_as(workspace, "own")


def test_all_batches_come_in_as_concepts(
    workspace: Workspace, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["neuronpedia", "import", "--sae", "s", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["added"], done["skipped"]) == (4, 1)
    assert "feature 99 is not in SAE" in done["troubles"][0]
    assert names(workspace) == ALL
    assert main(["neuronpedia", "import", "--sae", "s"]) == 0  # a second time changes nothing
    assert names(workspace) == ALL


def test_names_of_the_user_stay(workspace: Workspace, bucket: Bucket) -> None:
    Annotations(workspace.annotations_path).set_concept("s", 2, "mine", 1.0)
    assert main(["neuronpedia", "import", "--sae", "s"]) == 0
    assert (2, "the sea", "neuronpedia") not in names(workspace)
    assert main(["neuronpedia", "import", "--sae", "s", "--conflicts", "both"]) == 0
    assert names(workspace) > ALL


def test_an_import_brings_them_along(
    workspace: Workspace, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace.saes_dir / "s"
    source = str(folder.absolute())
    row = published_as(SOURCE)
    monkeypatch.setattr(
        "mi_crow.mechanistic.concepts.exchange.published_names.published_as",
        lambda given: row if given == source else None,
    )
    config = ImportConfig(str(folder), name="again", layer="resid_pre.3", names=True)
    result = import_with_names(workspace, config)
    assert (result.names, result.as_json()["names"]) == (4, 4)
    assert {one.sae_id for one in Annotations(workspace.annotations_path).concepts()} == {"again"}
    bucket.files.clear()
    lacking = import_with_names(workspace, replace(config, name="more"))
    assert lacking.names is None
    assert "Neuronpedia exports no explanations of gpt2-small/3-res-jb" in lacking.warnings[-1]
    assert (workspace.saes_dir / "more" / "cfg.json").is_file()  # the SAE is there all the same


def test_a_download_that_ends_early_changes_nothing(workspace: Workspace, bucket: Bucket) -> None:
    bucket.cut = 5
    assert main(["neuronpedia", "import", "--sae", "s"]) == 2
    assert names(workspace) == set()


def test_without_the_network_a_word(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("MI_CROW_NEURONPEDIA", "http://127.0.0.1:9/v1")
    assert main(["neuronpedia", "import", "--sae", "s"]) == 2
    said = capsys.readouterr().err
    assert "Neuronpedia's export was not reached" in said
    assert "mi-crow neuronpedia import FOLDER" in said
    assert "Traceback" not in said
    with pytest.raises(UserError, match="is not a source of Neuronpedia"):
        fetch_explanations("3-res-jb", tmp_path)
    assert published.published_as(SOURCE) is not None  # the table needs none


@pytest.mark.parametrize(("token", "pages"), [("x", 2), ("x{}", 200)])
def test_a_list_without_end_is_given_up(
    workspace: Workspace, bucket: Bucket, capsys: pytest.CaptureFixture[str], token, pages
) -> None:
    bucket.endless = token
    assert main(["neuronpedia", "import", "--sae", "s"]) == 2
    assert "the list of Neuronpedia's export does not end" in capsys.readouterr().err
    assert bucket.listed == pages
