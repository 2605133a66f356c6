"""Every row in its quick form."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults import rows


@pytest.fixture(scope="module")
def usual() -> Iterator[rows.Usual]:
    one = rows.Usual()
    yield one
    one.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("one", rows.everything(), ids=lambda one: one.name)
def test_a_row_is_right(one: rows.Row, usual: rows.Usual, request: pytest.FixtureRequest) -> None:
    def server(name: str) -> Any:
        return request.getfixturevalue(name)

    got = rows.run(one, server, usual, quick=True)
    assert one.is_right(got), f"is: {got}; should be: {one.wanted}"
