"""What a program behind each wall can do, tried by programs that try: Python and a shell in the place of qemu."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conversion import disks
from tests.servers.place import new_directory
from xloud_image.conversion import sandbox
from xloud_image.conversion.sandbox import Bounds, Wall
from xloud_image.errors import CannotConvert

PYTHON = "/usr/bin/python3"
BOUNDS = Bounds(20)
WALLS = pytest.mark.parametrize("wall", sandbox._WALLS, ids=lambda wall: wall.name)
ALL_WALLS = pytest.mark.parametrize("wall", disks.walls(), ids=lambda wall: wall.name)
pytestmark = pytest.mark.skipif(not Path(PYTHON).exists(), reason="Debian's Python is not installed")


async def told(wall: Wall, script: str, bounds: Bounds = BOUNDS, **how: object) -> tuple[int, str, str]:
    """Exit code, output, last words of a Python behind the wall. Each line of its output tells what it could do."""
    script = "import errno, os, sys, socket, signal, ctypes, threading, time, resource\n" + textwrap.dedent(script)
    command = [PYTHON, "-S", "-E", "-c", script]
    program = await sandbox.start(command, wall, bounds, output=True, **how)  # type: ignore[arg-type]
    assert program.stdout is not None
    out = await program.stdout.read()
    return await program.ended(), out.decode(), program.words


def test_a_wall_stands_here() -> None:
    wall = sandbox.which()
    assert wall.name in ("bubblewrap", "landlock")
    assert wall.sentence.startswith("conversion: qemu runs ")
    assert sandbox.which(required=False) is sandbox.NONE


def test_no_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the probe finds, and what it says when nothing stands."""
    monkeypatch.setattr(sandbox, "_WALLS", (Wall("landlock", "x"), Wall("unknown", "y")))
    monkeypatch.setattr(sandbox.launch, "__file__", "/nonexistent")
    sandbox._found.cache_clear()
    try:
        with pytest.raises(CannotConvert) as caught:
            sandbox.which()
    finally:
        sandbox._found.cache_clear()
    assert "no sandbox" in caught.value.message
    assert "/nonexistent" in str(caught.value.cure)
    assert "conversion_sandbox = none" in str(caught.value.cure)
    assert not caught.value.temporary


@ALL_WALLS
async def test_a_program_that_is_missing(wall: Wall) -> None:
    with pytest.raises(CannotConvert, match="qemu-new is not installed"):
        await sandbox.start(["/usr/bin/qemu-new"], wall, Bounds(20))


@WALLS
async def test_no_file_but_usr(wall: Wall) -> None:
    secret = new_directory("secret") / "secret"
    secret.write_text("secret")
    places = ["/etc/hostname", "/etc/passwd", "/proc/self/environ", "/proc/1/environ", "/dev/sda", str(secret),
              "/proc/self/root/etc/passwd", "/usr/../etc/passwd", "../etc/passwd", "/work/secret"]  # fmt: skip
    code, out, words = await told(
        wall,
        f"""
        for name in {places!r}:
            try:
                open(name).read()
                print("read", name)
            except OSError: pass
        for name in ("/usr/new", "/usr/bin/env", "new", "/new", "/tmp/new", "/var/tmp/new"):
            try:
                open(name, "a").write("x")
                print("wrote", name)
            except OSError: pass
        for call in (lambda: os.mkdir("/usr/new"), lambda: os.rename("/usr/bin/env", "/usr/bin/new"),
                     lambda: os.symlink("/etc/passwd", "new"), lambda: os.link("/usr/bin/env", "new"),
                     lambda: os.chmod("/usr/bin/env", 0o777), lambda: os.listdir("/root"), lambda: os.listdir("/etc")):
            try:
                call()
                print("did something")
            except OSError: pass
        print(len(open("/usr/bin/env", "rb").read()) > 0)
        """,
    )
    assert (code, out) == (0, "True\n"), words


@WALLS
async def test_no_network_and_no_other_process(wall: Wall) -> None:
    code, out, words = await told(
        wall,
        f"""
        for family in range(1, 45):
            for kind in (1, 2, 3, 5):
                try:
                    socket.socket(family, kind)
                    print("socket", family, kind)
                except OSError: pass
        libc = ctypes.CDLL(None, use_errno=True)
        victim = {os.getpid()}
        calls = dict(
            socketpair=lambda: socket.socketpair(),
            fork=os.fork,
            setsid=os.setsid,
            ptrace=lambda: libc.ptrace(16, victim, 0, 0),
            kill=lambda: os.kill(victim, 0),
            parent=lambda: os.kill(os.getppid(), 0),
            own=lambda: os.kill(os.getpid(), 0),
            unshare=lambda: libc.unshare(0x10000000),
            mount=lambda: libc.mount(b"none", b"/usr", b"tmpfs", 0, 0),
            chroot=lambda: os.chroot("/usr"),
            memfd=lambda: os.memfd_create("x"),
            setuid=lambda: os.setuid(0),
            death=lambda: libc.prctl(1, 0),
            inject=lambda: libc.process_vm_writev(victim, 0, 0, 0, 0, 0),
            nice=lambda: os.setpriority(os.PRIO_PROCESS, victim, 19),
            limits=lambda: resource.prlimit(victim, resource.RLIMIT_NOFILE),
            affinity=lambda: os.sched_setaffinity(victim, [0]),
            keyctl=lambda: libc.syscall(250, 0, 0) if os.uname().machine == "x86_64" else -1,
            bpf=lambda: libc.syscall(321, 0, 0, 0) if os.uname().machine == "x86_64" else -1,
            io_uring=lambda: libc.syscall(425, 1, 0),
        )
        for name, call in calls.items():
            try:
                if call() != -1: print("could", name)
            except OSError: pass
        thread = threading.Thread(target=print, args=("threads",))
        thread.start(); thread.join()
        """,
    )
    assert (code, out) == (0, "threads\n"), words


@ALL_WALLS
async def test_nothing_comes_along(wall: Wall) -> None:
    """No variable, no descriptor but those that are handed over, which are 3 and 4 in their order."""
    os.environ["XLOUD_SECRET"] = "secret"
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    one, two = os.pipe()
    three, four = os.pipe()
    try:
        code, out, words = await told(
            wall,
            """
            print(sorted(set(os.environ) - {"PWD", "LC_CTYPE"}))
            def alive(number):
                try: return bool(os.fstat(number)) or True
                except OSError: return False
            print([number for number in range(64) if alive(number)])
            os.write(3, b"three"); os.write(4, b"four")
            """,
            descriptors=(four, two),
        )
        os.close(two)
        os.close(four)
        assert (os.read(three, 100), os.read(one, 100)) == (b"three", b"four")
    finally:
        del os.environ["XLOUD_SECRET"]
        for number in (secret, one, three):
            os.close(number)
    assert (code, out) == (0, "['LC_ALL', 'MALLOC_ARENA_MAX', 'PATH']\n[0, 1, 2, 3, 4]\n"), words


@ALL_WALLS
async def test_one_directory_and_files_of_one_size(wall: Wall) -> None:
    folder = new_directory("out")
    folder.chmod(0o700)
    code, out, words = await told(
        wall,
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with open("out", "wb") as file:
            file.write(b"x" * 1000)
        try:
            open("out", "r+b").truncate(1 << 21)
            print("large")
        except OSError as error: print(error.errno == errno.EFBIG)
        os.unlink("out")
        open("out", "w").write("result")
        try:
            open("../beside", "w")
            print("beside")
        except OSError: print("no way")
        """,
        Bounds(20, file=1 << 20),
        directory=folder,
    )
    expected = "True\nbeside\n" if wall is sandbox.NONE else "True\nno way\n"
    assert (code, out) == (0, expected), words
    assert (folder / "out").read_text() == "result"
    assert [path.name for path in folder.iterdir()] == ["out"]


@ALL_WALLS
async def test_memory_and_time_have_ends(wall: Wall) -> None:
    code, out, _ = await told(
        wall,
        """
        try: bytearray(600 << 20)
        except MemoryError: print("no more")
        """,
        Bounds(20, memory=512 << 20),
    )
    assert (code, out) == (0, "no more\n")
    code, out, _ = await told(wall, "while True: pass", Bounds(1))
    assert code in (-signal.SIGXCPU, 128 + signal.SIGXCPU)


@ALL_WALLS
async def test_a_talker_is_not_waited_for(wall: Wall) -> None:
    """Ten megabytes of words: the last line is kept, fit to be read."""
    code, _, words = await told(
        wall,
        "sys.stderr.write('x' * (10 << 20) + '\\n'); sys.stderr.write('last\\x1b[2J \\x07 word\\n\\n'); sys.exit(3)",
    )
    assert (code, words) == (3, "last [2J   word")


@ALL_WALLS
async def test_killed_with_all_that_it_began(wall: Wall) -> None:
    async with disks.nothing_left():
        mark = f"mark-{os.getpid()}-{wall.name}"
        program = await sandbox.start([PYTHON, "-c", f"import time; time.sleep(600) # {mark}"], wall, Bounds(20))
        while not any("-c" in _words(one) for one in disks.processes(mark)):
            await asyncio.sleep(0.02)
        assert await program.kill() == -signal.SIGKILL
        assert not disks.processes(mark)
        assert await program.kill() == -signal.SIGKILL, "once more does no harm"


@ALL_WALLS
def test_it_dies_with_whoever_began_it(wall: Wall) -> None:
    mark = f"orphan-{os.getpid()}-{wall.name}"
    script = f"""
import asyncio, sys
from xloud_image.conversion import sandbox
async def main():
    command = [{PYTHON!r}, "-c", "import time; time.sleep(600) # {mark}"]
    program = await sandbox.start(command, sandbox.Wall({wall.name!r}, ""), sandbox.Bounds(20))
    print("begun", flush=True)
    await program.ended()
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", script.replace(mark, '" + sys.argv[1] + "'), mark], stdout=-1)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"begun\n"
        _wait(lambda: any(_words(one)[0] == PYTHON for one in disks.processes(mark)))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    _wait(lambda: not disks.processes(mark))


def _words(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except OSError:
        return [""]


def _wait(until: object) -> None:
    import time

    end = time.monotonic() + 30
    while not until():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)
