"""Both ways in which the index pass does its arithmetic, on a CPU."""

from collections.abc import Iterator

import pytest

from mi_crow.mechanistic.features.index import primitives


@pytest.fixture(scope="module", params=["numpy", "torch"])
def arithmetic(request: pytest.FixtureRequest) -> Iterator[str]:
    """Tests that use it run twice: with what serves the CPU, and with what serves any other
    device."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "torch":
            patch.setattr(primitives, "NUMPY_DEVICES", frozenset())
        yield request.param
