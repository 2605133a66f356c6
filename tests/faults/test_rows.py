"""Every row in its quick form."""

from typing import Any

import pytest

from tests.faults import rows


@pytest.mark.parametrize("one", rows.everything(), ids=lambda one: one.name)
def test_a_row_is_right(one: rows.Row, request: pytest.FixtureRequest) -> None:
    def server(name: str) -> Any:
        return request.getfixturevalue(name)

    got = rows.run(one, server, quick=True)
    assert one.is_right(got), f"is: {got}; should be: {one.wanted}"
