"""Begins a program behind a wall: `python -I -S launch.py JSON`. Needs the standard library only; see `sandbox`.

What JSON holds: command; wall (bubblewrap, landlock or none); parent, the process with which it ends; descriptors, that
the program gets as 3, 4, …; directory, the only one that it may write to, where it begins; limits, by the names of
resource.RLIMIT_*; listening, whether descriptor 3 is a listening socket (LISTEN_FDS).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, Final

_USR: Final = "/usr"
_LINKED: Final = ("/bin", "/lib", "/lib32", "/lib64", "/sbin")  # into /usr on systems that merged them
# a user that nobody else is: this and the number of the process
_NOBODY: Final = 2_000_000_000
_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_TIMERSLACK, _PR_SET_NO_NEW_PRIVS = 1, 15, 29, 38

# Landlock's system calls, which have these numbers on every machine, and its rights
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_FILE, _MAKE_REG, _TRUNCATE = (
    1 << bit for bit in (0, 1, 2, 3, 5, 8, 14)
)
_ALL_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_READING: Final = _EXECUTE | _READ_FILE | _READ_DIR
_WRITING: Final = _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE

# what qemu's tools and the C library call; all else answers that the kernel knows no such call
_ALLOWED: Final = """
accept accept4 access arch_prctl brk chdir clock_getres clock_gettime clock_nanosleep close close_range dup dup2 dup3
epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 execve exit exit_group faccessat faccessat2 fadvise64
fallocate fcntl fdatasync fstat fstatfs fsync ftruncate futex get_mempolicy getcwd getdents64 getegid geteuid getgid
getpeername getpid getppid getrandom getrlimit getsockname getsockopt gettid gettimeofday getuid ioctl lseek lstat
madvise membarrier mmap mprotect mremap munmap nanosleep newfstatat open openat pipe2 poll ppoll pread64 preadv
preadv2 pwrite64 pwritev pwritev2 read readlink readlinkat readv recvfrom recvmsg restart_syscall rseq rt_sigaction
rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait sched_getaffinity sched_getparam
sched_getscheduler sched_yield sendmsg sendto set_mempolicy set_robust_list set_tid_address setsockopt shutdown
sigaltstack signalfd4 stat statfs statx sync_file_range sysinfo timerfd_create timerfd_gettime timerfd_settime umask
uname unlink unlinkat wait4 waitid write writev
""".split()
_CLONE_THREAD: Final = 0x10000
_ALLOW_ACTION, _ERRNO_ACTION, _ENOSYS = 0x7FFF0000, 0x00050000, 38
_EQUAL, _MASKED = 4, 7


class _Comparison(ctypes.Structure):
    """An argument of a system call: `struct scmp_arg_cmp` of libseccomp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    given: dict[str, Any] = json.loads(sys.argv[1])
    _take_descriptors(given["descriptors"])
    wall, directory = given["wall"], given["directory"]
    if directory is not None:
        os.chdir(directory)
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "MALLOC_ARENA_MAX": "2"}
    inside = 2 if wall == "bubblewrap" else os.getpid()  # there 1 is bubblewrap
    if given["listening"]:
        environment |= {"LISTEN_FDS": "1", "LISTEN_PID": str(inside)}
    command = given["command"]
    if wall == "bubblewrap":
        command = [*_bubblewrap(directory, environment, _exported(_filter(inside))), "--", *command]
    if wall == "landlock":
        rules, allowed = _ruleset(directory), _filter(inside)
        if os.geteuid() == 0:
            _become_nobody(directory)
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != given["parent"]:
        os._exit(1)
    for name, most in given["limits"].items():
        # of processor time the hard limit is behind the soft one, whose signal tells why it ended
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most + 5 * (name == "CPU")))
    if wall == "landlock":
        _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _call("syscall", _RESTRICT_SELF, rules, 0)
        os.close(rules)
        if _seccomp().seccomp_load(allowed):
            raise OSError("seccomp_load failed")
    os.execvpe(command[0], command, environment)  # noqa: S606 - no shell


def _take_descriptors(descriptors: list[int]) -> None:
    """As 3, 4, …, and none else."""
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in descriptors]
    for place, number in enumerate(moved, 3):
        os.dup2(number, place, inheritable=True)
    os.closerange(3 + len(moved), 1 << 20)


def _bubblewrap(directory: str | None, environment: dict[str, str], program: int) -> list[str]:
    """Nothing but /usr in sight, read-only, and the directory as /work; no network, no process but its own."""
    words = "bwrap --unshare-all --die-with-parent --cap-drop ALL --clearenv --ro-bind /usr /usr".split()
    for name in _LINKED:
        if os.path.islink(name):
            words += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            words += ["--ro-bind", name, name]
    words += ["--bind", directory, "/work", "--chdir", "/work"] if directory is not None else ["--chdir", "/"]
    words += ["--remount-ro", "/"]
    for name, value in environment.items():
        words += ["--setenv", name, value]
    return [*words, "--seccomp", str(program)]


def _ruleset(directory: str | None) -> int:
    """A descriptor of Landlock's: /usr may be read, the directory written; nobody outside be reached. What older
    ones do not know (truncating, sockets, signals) is left to the filter of calls."""
    abi = _call("syscall", _CREATE_RULESET, None, 0, 1)
    rights = _ALL_RIGHTS[max(known for known in _ALL_RIGHTS if known <= abi)]
    # rights on files; bind and connect of TCP; abstract sockets and signals
    fields = (rights, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
    handled = (ctypes.c_uint64 * 3)(*fields)
    rules = _call("syscall", _CREATE_RULESET, handled, 24 if abi >= 6 else 16 if abi >= 4 else 8, 0)
    places = [(name, _READING) for name in (_USR, *_LINKED) if os.path.isdir(name) and not os.path.islink(name)]
    if directory is not None:
        places.append((directory, _WRITING))
    for name, allowed in places:
        place = os.open(name, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", allowed & rights, place)
        _call("syscall", _ADD_RULE, rules, 1, rule, 0)
        os.close(place)
    return rules


def _become_nobody(directory: str | None) -> None:
    user = _NOBODY + os.getpid()
    if directory is not None:
        os.chown(directory, user, user)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _filter(inside: int) -> Any:
    """A filter of libseccomp's for the process `inside`: no socket, no other process; threads, but no children."""
    library = _seccomp()
    known = library.seccomp_init(_ERRNO_ACTION | _ENOSYS)
    if not known:
        raise OSError("seccomp_init failed")
    rules: list[tuple[str, tuple[_Comparison, ...]]] = [(name, ()) for name in _ALLOWED]
    rules += [
        ("clone", (_Comparison(0, _MASKED, _CLONE_THREAD, _CLONE_THREAD),)),
        ("prctl", (_Comparison(0, _EQUAL, _PR_SET_NAME),)),
        ("prctl", (_Comparison(0, _EQUAL, _PR_SET_TIMERSLACK),)),
        ("prlimit64", (_Comparison(0, _EQUAL, 0),)),
        ("tgkill", (_Comparison(0, _EQUAL, inside),)),
    ]
    for name, compared in rules:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # this machine, or this library, has none
            continue
        arguments = (_Comparison * len(compared))(*compared)
        if library.seccomp_rule_add_array(known, _ALLOW_ACTION, number, len(compared), arguments):
            raise OSError(f"seccomp takes no rule for {name}")
    return known


def _exported(known: Any) -> int:
    """A descriptor of the filter's program."""
    program = os.memfd_create("filter", 0)
    if _seccomp().seccomp_export_bpf(known, program):
        raise OSError("seccomp_export_bpf failed")
    os.lseek(program, 0, os.SEEK_SET)
    return program


def _seccomp() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Comparison)
    ]  # fmt: skip
    return library


def _call(name: str, *arguments: Any) -> int:
    """Of the C library. Raises `OSError`."""
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result: int = getattr(_libc, name)(*words)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name} {arguments[0]}: {os.strerror(number)}")
    return result


if __name__ == "__main__":
    main()
