"""Where a process may die in the middle of long work: each failpoint, and each kind of work. Who dies there:

    A   the process of the API, and the client asks again
    W   the process for long work
    w   the same, where it only does it because the API stands still
    R   whoever's reaper takes what a first death left
    U   the process of the API, while it puts back what a client sent wrongly
    L   the same, an hour later, when it removes what was moved
    .   nobody: this kind does not pass this step, which the test sees when nothing dies

Steps that belong to requests on the record alone have their deaths in tests.crash.test_points, those of events on their
way in tests.messaging; a row without a letter says why no long work passes it.
"""

from typing import NamedTuple

KINDS = (
    "direct", "web", "copy", "far", "raw", "qcow2", "unpack", "move", "delete", "cache", "hash", "upload", "stage"
)  # fmt: skip

_TABLE = """
                     direct web copy far raw qcow2 unpack move delete cache hash upload stage
create.begin         .      .   .    .   .   .     .      .    .      .     .    .      .     # it is there before
create.stored        .      .   .    .   .   .     .      .    .      .     .    .      .     # it is there before
change.begin         .      .   .    .   .   .     .      .    .      .     .    .      .     # a change of the record
change.stored        .      .   .    .   .   .     .      .    .      .     .    .      .     # a change of the record
upload.begin         .      .   .    .   .   .     .      .    .      .     .    .      .     # an upload by one request
upload.claimed       .      .   .    .   .   .     .      .    .      .     .    .      .     # an upload by one request
upload.first_byte    .      .   .    .   .   .     .      .    .      .     .    .      .     # an upload by one request
upload.half          .      .   .    .   .   .     .      .    .      .     .    .      .     # an upload by one request
upload.received      .      .   .    .   .   .     .      .    .      .     .    .      .     # an upload by one request
upload.written       .      .   .    .   .   .     .      .    .      .     .    .      .     # an upload by one request
upload.activated     .      .   .    .   .   .     .      .    .      .     .    A      .
stage.written        A      .   .    .   .   A     A      .    .      .     .    .      .
stage.kept           A      .   .    .   .   A     A      .    .      .     .    .      .
parts.begun          .      .   .    .   .   .     .      .    .      .     .    A      A
part.claimed         .      .   .    .   .   .     .      .    .      .     .    A      A
part.written         .      .   .    .   .   .     .      .    .      .     .    A      A
part.kept            .      .   .    .   .   .     .      .    .      .     .    A      A
parts.finishing      .      .   .    .   .   .     .      .    .      .     .    A      A
parts.written        .      .   .    .   .   .     .      .    .      .     .    A      .
parts.staged         .      .   .    .   .   .     .      .    .      .     .    .      A
import.begin         A      A   A    A   A   A     A      A    .      .     .    .      A
import.stored        A      A   A    A   A   A     A      A    .      .     .    .      A
job.taken            W      W   W    W   W   W     W      W    .      .     .    .      W
job.half             W      W   W    W   W   W     W      W    .      .     .    .      W
job.written          W      W   W    W   W   W     W      W    .      .     .    .      W
job.done             W      W   W    W   W   W     W      W    .      .     .    .      W
undo.bytes_gone      U      .   .    .   .   .     .      .    .      .     .    U      U
delete.begin         .      .   .    .   .   .     .      .    A      .     .    .      .
delete.marked        .      .   .    .   .   .     .      .    A      .     .    .      .
delete.bytes_gone    .      .   .    .   .   .     .      .    A      .     .    .      .
delete.done          .      .   .    .   .   .     .      .    A      .     .    .      .
location.begin       .      .   .    .   .   .     .      .    .      .     A    .      .
location.stored      .      .   .    .   .   .     .      .    .      .     A    .      .
hash.read            .      .   .    .   .   .     .      .    .      .     Aw   .      .
member.begin         .      .   .    .   .   .     .      .    .      .     .    .      .     # a change of the record
member.stored        .      .   .    .   .   .     .      .    .      .     .    .      .     # a change of the record
reaper.taken         R      R   R    R   R   R     R      R    R      .     .    R      R
reaper.bytes_gone    R      R   R    R   R   R     R      R    R      .     .    R      R
relay.sent           .      .   .    .   .   .     .      .    .      .     .    .      .     # an event on its way
file.created         AW     W   W    W   W   AW    AW     W    .      .     .    A      AW
file.synced          AW     W   W    W   W   AW    AW     W    .      .     .    A      AW
file.linked          AW     W   W    W   W   AW    AW     W    .      .     .    A      AW
file.unlinked        W      .   .    .   .   W     W      L    A      .     .    A      W
cache.begun          .      .   .    .   .   .     .      .    .      A     .    .      .
cache.written        .      .   .    .   .   .     .      .    .      A     .    .      .
cache.filled         .      .   .    .   .   .     .      .    .      A     .    .      .
"""


class Cell(NamedTuple):
    """One death: `who` is a letter of the table."""

    kind: str
    point: str
    who: str

    def __str__(self) -> str:
        return "-".join(self)


def _read() -> dict[tuple[str, str], str]:
    head, *lines = _TABLE.strip().splitlines()
    assert tuple(head.split()) == KINDS
    found: dict[tuple[str, str], str] = {}
    for line in lines:
        words, _, why = line.partition("#")
        point, *cells = words.split()
        assert len(cells) == len(KINDS), line
        assert set("".join(cells)) <= set("AWwRUL."), line
        assert (set(cells) == {"."}) == bool(why), f"{line}: why does nothing pass here?"
        found |= {(kind, point): cell for kind, cell in zip(KINDS, cells, strict=True)}
    return found


TABLE = _read()


# all of them, kind by kind
DEATHS = [
    Cell(kind, point, who)
    for kind in KINDS
    for (of, point), cell in TABLE.items()
    if of == kind
    for who in cell
    if who != "."
]
