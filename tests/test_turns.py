"""A turn of an event loop that takes too long is noticed."""

import asyncio
import sys
import time

import pytest

from tests import turns
from tests.servers.process import run
from xloud_image.turns import LIMIT

_WORKS = """
import asyncio, sys, time
from xloud_image import turns

async def main():
    await asyncio.sleep(0)
    end = time.thread_time() + float(sys.argv[1])
    while time.thread_time() < end:
        pass

turns.begin_if_asked()
asyncio.run(main())
"""


@pytest.mark.long_turns
def test_a_long_turn_of_another_process_is_told() -> None:
    turns.new()
    run([sys.executable, "-c", _WORKS, str(LIMIT * 2)], seconds=60)
    (told,) = turns.new(meant=True)
    assert "of processor time in" in told
    run([sys.executable, "-c", _WORKS, "0.01"], seconds=60)
    assert turns.new() == []


async def test_waiting_and_the_work_of_tests_are_no_turn_of_ours() -> None:
    await asyncio.sleep(LIMIT * 1.5)
    end = time.thread_time() + LIMIT * 1.5
    while time.thread_time() < end:
        pass
