"""A LocalStore is a workspace under the published package's name."""

from pathlib import Path

import pytest

from mi_crow.errors import NotFoundError, UserError
from mi_crow.store import LocalStore
from tests.helpers.stored_runs import write_run


def test_a_local_store_is_a_workspace(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "w")
    write_run(store.workspace.make_run_dir("first", ""), [[2]])
    assert store.list_runs() == ["first"]
    assert store.get_run_metadata("first").n_tokens == 2
    assert store.base_path == tmp_path / "w"
    with pytest.raises(NotFoundError, match="run 'none' not found"):
        store.get_run_metadata("none")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        LocalStore(tmp_path / "file")
