"""Images by chance with fixed seeds, some hundreds: nothing that is taken makes qemu open anything but itself.
`make fuzz` is the long run."""

from pathlib import Path

import pytest

from tests.formats import build, fuzz
from tests.formats.mutate import KINDS, Case, case
from tests.formats.sandbox import Sandbox
from xloud_image.inspection import Inspection

DATA_FILE = build.qcow2(incompatible=4, extensions=[(0x44415441, b"canary")])


@pytest.mark.timeout(1800)  # hundreds of processes
def test_no_image_that_is_taken_leads_elsewhere() -> None:
    counts = fuzz.run(iter(range(2000)))
    assert counts.findings == {}
    assert all(counts.taken[kind] for kind in KINDS if kind not in ("descriptor", "others")), str(counts)
    assert counts.able > 100, "most of what is taken must be what qemu can open, or this shows nothing"


@pytest.mark.timeout(900)
def test_without_the_walls_it_finds_something() -> None:
    """The library alone takes VMDK that lead qemu to the canary."""
    counts = fuzz.run(iter(range(60)), fuzz.library, kind="vmdk", enough=1)
    assert any("canary" in name for names in counts.findings.values() for name in names)


@pytest.mark.timeout(900)
def test_with_walls_that_hide_the_claim_it_finds_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that look like one format, and are a descriptor for who believes that they are a VMDK."""
    begin = Inspection._begin_claimed
    monkeypatch.setattr(Inspection, "_begin_claimed", lambda judge: None if judge._walls else begin(judge))
    counts = fuzz.run(iter(range(60)), kind="polyglot", enough=1)
    assert any("canary" in name for names in counts.findings.values() for name in names)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    return Sandbox(tmp_path_factory.mktemp("sandbox"))


@pytest.mark.parametrize(
    ("claim", "data"),
    [
        ("qcow2", build.qcow2(backing=512, backing_length=6, behind=b"canary")),
        ("qcow2", DATA_FILE),
        ("qed", build.qed(backing=b"canary", features=1)),
        ("qcow", build.qcow1(b"canary")),
        (
            "vmdk",
            b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="vmfs"\nRW 9 VMFS "canary"\n',
        ),
        (
            "vmdk",
            build.vmdk(
                build.DESCRIPTOR.replace(b"monolithicSparse", b"monolithicFlat").replace(
                    b'SPARSE "disk.vmdk"', b'FLAT "canary" 0'
                ),
                capacity=0,
            ),
        ),
    ],
)
def test_the_sandbox_notices(sandbox: Sandbox, claim: str, data: bytes) -> None:
    """Each known way out is seen, by the name and by the bytes; by the name also where it is not the first claim."""
    beside, _ = sandbox.findings([Case(7, "", "raw", None, data, ("vdi", claim)), Case(8, "", "raw", None, bytes(9))])
    assert set(beside) == {7}
    assert any("canary" in name for name in beside[7])
    found, _ = sandbox.findings([Case(7, "", claim, None, data), Case(8, "", "raw", None, bytes(4096))])
    assert set(found) == {7}
    assert any("canary" in name for name in found[7])
    # the data file has no clusters in use
    assert ("the canary's bytes" in found[7]) == (data != DATA_FILE)


@pytest.mark.parametrize(
    ("claim", "data"),
    [
        ("qcow2", build.qcow2()), ("qcow2", build.qcow2(version=2)), ("vmdk", build.vmdk()), ("vhd", build.vhd()),
        ("vmdk", build.vmdk(footer=build.stream_footer())), ("vhd", build.fixed_vhd()), ("vhdx", build.vhdx()),
        ("vdi", build.vdi()), ("qed", build.qed()), ("bochs", build.bochs(b"Growing")),
    ],
)  # fmt: skip
def test_the_builders_make_what_qemu_opens(sandbox: Sandbox, claim: str, data: bytes) -> None:
    """So that mutants are near to what is real."""
    assert sandbox.findings([Case(9, "", claim, None, data)]) == ({}, 1)
    folder = Path(sandbox.folder)
    assert not list(folder.glob("batch*/9"))


def test_a_case_depends_on_its_seed() -> None:
    assert case(12345, "/x") == case(12345, "/x")
    assert case(12345, "/x") != case(12346, "/x")
