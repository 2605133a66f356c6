"""kill -9 at random moments. More rounds by hand: `python -m tests.crash --seed N --rounds N`."""

from tests.crash.rounds import Rounds


def test_twenty_random_moments() -> None:
    rounds = Rounds(seed=20260102)
    assert rounds.run(20) == []
    assert rounds.answered > 100, "the clients were hardly served; this proves little"
