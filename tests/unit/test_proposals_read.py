"""Proposed names are read a screenful at first, all of them once there is time."""

import numpy as np
import pytest

from mi_crow.errors import CorruptDataError, NotFoundError
from mi_crow.mechanistic.features.beside.proposals import (
    Lines,
    Proposals,
    proposals_path,
    write_proposals,
)
from mi_crow.mechanistic.features.queries import FeatureStore
from mi_crow.store.workspace import Workspace
from tests.helpers.index_fixture import make_index

N = 64
NAMES = [f"name {feature}" if feature % 3 else "" for feature in range(N)]
NAMES[5] = "two\nlines"


@pytest.fixture
def store(workspace: Workspace) -> FeatureStore:
    make_index(workspace, "s")
    built_at = FeatureStore.open(workspace, "s").meta().built_at
    zeros = np.zeros(N, np.float32)
    found = Proposals(
        feature=np.arange(N, dtype=np.int32),
        name=NAMES,
        kind=["token"] * N,
        score=zeros,
        chance=zeros,
        hits=zeros,
        false_alarms=zeros,
        firings=np.zeros(N, np.int32),
        words=[[]] * N,
        around=[[]] * N,
    )
    write_proposals(proposals_path(workspace, "s"), found, built_at)
    return FeatureStore.open(workspace, "s")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The columns that are read whole."""
    columns: list[str] = []
    whole = Lines.read.__func__

    def reading(cls, connection, path, column):
        columns.append(column)
        return whole(cls, connection, path, column)

    monkeypatch.setattr(Lines, "read", classmethod(reading))
    return columns


def test_a_screenful_of_names_does_not_wait_for_all_of_them(store: FeatureStore, read: list[str]):
    some = [7, 5, 0, 63, 7]
    expected = ["name 7", "two lines", "", "", "name 7"]
    assert store.connection.proposals.texts("name", some) == expected
    assert [row.proposed or "" for row in store.rows([5, 7])] == ["two lines", "name 7"]
    assert store.connection.proposals.texts("name", []) == []
    assert read == []
    store.rest()
    assert read == ["name"]
    assert store.connection.proposals.texts("name", some) == expected
    store.rest()
    assert read == ["name"]


def test_many_names_are_read_at_once(store: FeatureStore, read: list[str]):
    assert store.connection.proposals.texts("kind", [3] * 200) == ["token"] * 200
    assert read == ["kind"]
    for feature in range(9):
        assert read == ["kind"]
        assert store.connection.proposals.texts("name", [feature]) == [
            NAMES[feature].replace("\n", " ")
        ]
    assert read == ["kind", "name"]


def test_what_cannot_be_read_at_rest_is_told_to_whoever_asks(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_):
        raise CorruptDataError("names.parquet is damaged")

    store.connection.proposals.texts("name", [1])
    monkeypatch.setattr(Lines, "read", broken)
    store.rest()
    with pytest.raises(CorruptDataError):
        store.connection.proposals.texts("name", list(range(N)) * 3)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (".", "the workspace is gone: '{root}' is not there"),
        ("saes/s", "SAE 's' is gone"),
        ("saes/s/names.parquet", "'{root}/saes/s/names.parquet' is gone"),
    ],
)
def test_what_is_gone_is_named(store: FeatureStore, workspace: Workspace, part: str, said: str):
    assert store.connection.proposals.of(7) is not None
    there = workspace.root / part
    there.rename(workspace.root.with_name("away"))
    with pytest.raises(NotFoundError) as raised:
        store.connection.proposals.of(7)
    assert str(raised.value) == said.format(root=workspace.root)
    workspace.root.with_name("away").rename(there)
    assert store.connection.proposals.of(7) is not None


def test_damaged_names_are_not_called_a_damaged_index(store: FeatureStore, workspace: Workspace):
    assert store.connection.proposals.of(7) is not None
    path = proposals_path(workspace, "s")
    path.write_bytes(b"no table at all")
    with pytest.raises(CorruptDataError) as raised:
        store.connection.proposals.of(7)
    assert str(raised.value).startswith(f"{str(path)!r} is damaged (")
