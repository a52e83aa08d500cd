"""Whether a process is alive and why it ended, with real processes, real cgroups and laid-out ones."""

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from nbtrack import processes, server
from nbtrack.processes import Watch, identity, oom_counter, oom_kills, rebooted, record, state_of

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SLEEP = ("sleep", "60")
UNKNOWN = ("the process ended, cause unknown", None)
PID = 4242  # of the processes that are only laid out
ENDS: dict[str, tuple[str | int, tuple[str, int | None]]] = {
    "SIGKILL": (signal.SIGKILL, ("SIGKILL, cause unknown", 9)),
    "SIGTERM": (signal.SIGTERM, ("SIGTERM", 15)),
    "SIGINT": (signal.SIGINT, ("SIGINT", 2)),
    "SIGSEGV": (signal.SIGSEGV, ("SIGSEGV", 11)),
    "real-time signal": (40, ("signal 40", 40)),
    "os._exit(3)": ("import os; input(); os._exit(3)", ("exit status 3", None)),
    "sys.exit(7)": ("import sys; input(); sys.exit(7)", ("exit status 7", None)),
    "normal exit": ("input()", ("exit status 0", None)),
    "exit of a second thread": (
        "import os, threading, time; threading.Thread(target=lambda: (input(), os._exit(4))).start(); time.sleep(60)",
        ("exit status 4", None),
    ),
}


def signals_as_usual() -> None:
    """Undo in a child that pytest may run in the background, where SIGINT is ignored; and write no core file."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Child:
    """A process that has the write end of a pipe open, as a kernel does."""

    def __init__(self, *command: str) -> None:
        self.listen, bell = os.pipe()
        self.process = subprocess.Popen(
            command, pass_fds=(bell,), stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=signals_as_usual
        )
        os.close(bell)
        self.pid = self.process.pid

    def reap_at_once(self) -> None:
        """Let a parent wait for it from now on."""
        self.reaper = threading.Thread(target=self.process.wait)
        self.reaper.start()

    def say_go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write(b"\n\n")
        self.process.stdin.flush()

    def notice_end(self) -> None:
        assert select.select([self.listen], [], [], 20.0)[0], "it did not end"
        assert os.read(self.listen, 1) == b""

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            stream.close()
        os.close(self.listen)


@pytest.fixture
def child() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def start(*command: str) -> Child:
        children.append(Child(*command))
        return children[-1]

    yield start
    for one in children:
        one.close()


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-I", "-S", "-c", code


def ended(child: Callable[..., Child], how: str | int, reaped: bool) -> tuple[Child, Watch]:
    """Watch a new process to its end."""
    one = child(*(SLEEP if isinstance(how, int) else python(how)))
    watch = Watch(record(one.pid))
    if reaped:
        one.reap_at_once()
    if isinstance(how, int):
        os.kill(one.pid, how)
    else:
        one.say_go()
    one.notice_end()
    return one, watch


@LINUX
@pytest.mark.parametrize(("how", "cause"), ENDS.values(), ids=ENDS)
def test_the_cause_while_nobody_waits_for_the_process(child: Any, how: str | int, cause: Any) -> None:
    one, watch = ended(child, how, reaped=False)
    assert watch.cause() == cause
    assert watch.cause() == cause, "it can be asked again"
    assert identity(one.pid) == watch.identity, "a zombie is still there"
    assert state_of(watch.identity) == "ended"


def needs_exit_in_pidfd() -> None:
    version = tuple(int(part) for part in os.uname().release.split(".")[:2])
    if sys.platform != "linux" or version < (6, 15) or processes._open_pidfd(os.getpid()) is None:
        pytest.skip("only a pidfd of Linux 6.15 or later knows how a process ended that its parent has waited for")


@LINUX
@pytest.mark.parametrize("open_by", ["os", "ctypes"])
@pytest.mark.parametrize(("how", "cause"), ENDS.values(), ids=ENDS)
def test_the_cause_after_the_parent_has_waited(
    child: Any, how: str | int, cause: Any, open_by: str, monkeypatch: Any
) -> None:
    needs_exit_in_pidfd()
    if open_by == "ctypes":
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    one, watch = ended(child, how, reaped=True)
    assert watch.cause() == cause, "in the middle of it"
    one.reaper.join()
    assert watch.cause() == cause, "afterwards"
    assert state_of(watch.identity) == "ended"
    with pytest.raises(ProcessLookupError):
        identity(one.pid)


@LINUX
def test_without_a_pidfd_a_process_that_was_waited_for_ended_for_unknown_cause(child: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(processes, "_open_pidfd", lambda pid: None)
    one, watch = ended(child, signal.SIGTERM, reaped=True)
    one.reaper.join()
    began = time.monotonic()
    assert watch.cause() == UNKNOWN
    assert time.monotonic() - began < processes.READING / 2, "there is nothing to wait for"


@LINUX
def test_a_linux_whose_pidfd_gives_no_exit_code_falls_back_silently(child: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(processes, "PIDFD_GET_INFO", processes.PIDFD_GET_INFO + 100)  # ENOTTY or EINVAL
    _, watch = ended(child, signal.SIGTERM, reaped=False)
    assert watch.cause() == ("SIGTERM", 15)
    one, watch = ended(child, signal.SIGTERM, reaped=True)
    one.reaper.join()
    assert watch.cause() == UNKNOWN


@LINUX
def test_the_state_of_a_living_process_and_of_records_that_differ(child: Any) -> None:
    one = child(*SLEEP)
    recorded = json.loads(json.dumps(identity(one.pid)))
    assert (recorded["host"], recorded["pid"]) == (socket.gethostname(), one.pid)
    assert state_of(recorded) == "alive"
    assert not rebooted(recorded)
    os.kill(one.pid, signal.SIGSTOP)
    assert state_of(recorded) == "alive"
    assert state_of(recorded | {"started": recorded["started"] - 1}) == "ended", "the pid is another process's now"
    assert state_of(recorded | {"pid": 2**22 + 1}) == "ended"
    assert state_of(recorded | {"boot": "another"}) == "ended"
    assert rebooted(recorded | {"boot": "another"})
    assert state_of(recorded | {"host": "another", "boot": "another"}) == "elsewhere"
    assert not rebooted(recorded | {"host": "another", "boot": "another"})
    with pytest.raises(ProcessLookupError):
        record(2**22 + 1)


@LINUX
def test_a_process_that_lives_on_has_no_cause(child: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(processes, "READING", 0.02)
    one = child(*SLEEP)
    watch = Watch(record(one.pid))
    os.kill(one.pid, signal.SIGSTOP)  # whose number is where an exit code would be
    wait_for(lambda: Path(f"/proc/{one.pid}/stat").read_text().split()[2] == "T", "a process that is stopped")
    assert watch.cause() == UNKNOWN


def test_the_senders_bare_python_can_import_it() -> None:
    root = str(Path(processes.__file__).parents[1])
    code = (
        f"import sys, os; sys.path.insert(0, {root!r})\n"
        "from nbtrack.processes import *\n"
        "assert state_of(record(os.getppid())) == 'alive'"
    )
    subprocess.run(python(code), check=True)


class Laid:
    """A root folder with a ``/proc`` and a ``/sys/fs/cgroup`` as files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/sys/kernel/random/boot_id", "boot-1\n")
        self.stat("R", 0)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def stat(self, state: str, exit_code: int, started: int = 777, text: int = 4096) -> None:
        fields = ["0"] * 50  # fields 3 to 52
        fields[0], fields[19], fields[23], fields[49] = state, str(started), str(text), str(exit_code)
        self.write(f"proc/{PID}/stat", f"{PID} (a) R 1 (b c) {' '.join(fields)}\n")


@pytest.fixture
def laid(tmp_path: Path, monkeypatch: Any) -> Laid:
    monkeypatch.setattr(processes, "_open_pidfd", lambda pid: None)
    monkeypatch.setattr(processes, "READING", 0.02)
    return Laid(tmp_path)


V2 = "low 0\nhigh 0\nmax 12\noom {0}\noom_kill {0}\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill {0}\n"
V1_LINES = "12:cpu,cpuacct:/other\n5:memory:/user/kernel\n1:name=systemd:/other\n"
LAYOUTS = {
    "v2": ("0::/user/kernel\n", "sys/fs/cgroup/user/kernel/memory.events", V2),
    "v2 beside v1": (V1_LINES + "0::/user/kernel\n", "sys/fs/cgroup/unified/user/kernel/memory.events", V2),
    "v2 counted above": ("0::/user/kernel\n", "sys/fs/cgroup/user/memory.events", V2),
    "v2 in a container": ("0::/docker/0123:4567\n", "sys/fs/cgroup/memory.events", V2),
    "v2 outside the namespace": ("0::/../../user/kernel\n", "sys/fs/cgroup/memory.events", V2),
    "v1": (V1_LINES, "sys/fs/cgroup/memory/user/kernel/memory.oom_control", V1),
    "v1 with an empty v2": (V1_LINES + "0::/\n", "sys/fs/cgroup/memory/user/kernel/memory.oom_control", V1),
    "v1 in a container": (V1_LINES, "sys/fs/cgroup/memory/memory.oom_control", V1),
}


@pytest.mark.parametrize(("cgroup", "counter", "text"), LAYOUTS.values(), ids=LAYOUTS)
def test_a_risen_counter_makes_sigkill_out_of_memory(laid: Laid, cgroup: str, counter: str, text: str) -> None:
    laid.write(f"proc/{PID}/cgroup", cgroup)
    file = laid.write(counter, text.format(3))
    assert oom_counter(PID, laid.root) == file
    assert oom_kills(file) == 3
    watch = Watch(record(PID, laid.root), laid.root)
    laid.stat("Z", signal.SIGKILL)
    assert watch.cause() == ("SIGKILL, cause unknown", 9)
    file.write_text(text.format(4))
    assert watch.cause() == ("out of memory", 9)
    laid.stat("Z", signal.SIGTERM)
    assert watch.cause() == ("SIGTERM", 15), "another process of the cgroup was killed"
    (laid.root / f"proc/{PID}/stat").unlink()
    (laid.root / f"proc/{PID}/cgroup").unlink()
    assert watch.cause() == ("out of memory", None), "already reaped"
    file.unlink()
    assert watch.cause() == UNKNOWN, "the cgroup is gone too"


@pytest.mark.parametrize("cgroup", [None, "", "0::/user\n", V1_LINES, "nonsense\n"])
def test_without_a_counter_the_cause_of_sigkill_is_unknown(laid: Laid, cgroup: str | None) -> None:
    if cgroup is not None:
        laid.write(f"proc/{PID}/cgroup", cgroup)
    laid.write("sys/fs/cgroup/memory/user/kernel/memory.oom_control", "unreadable\n")
    watch = Watch(record(PID, laid.root), laid.root)
    assert oom_counter(PID, laid.root) is None
    laid.stat("Z", signal.SIGKILL)
    assert watch.cause() == ("SIGKILL, cause unknown", 9)


def test_what_is_laid_out_in_proc_is_read_right(laid: Laid) -> None:
    assert identity(PID, laid.root) == {"host": socket.gethostname(), "boot": "boot-1", "pid": PID, "started": 777}
    watch = Watch(record(PID, laid.root), laid.root)
    assert state_of(watch.identity, laid.root) == "alive"
    laid.stat("R", 3 << 8)
    assert watch.cause() == ("exit status 3", None), "the code is there before the process is a zombie"
    laid.stat("Z", signal.SIGSEGV | 0x80)
    assert watch.cause() == ("SIGSEGV", 11), "with a core dump"
    laid.stat("Z", signal.SIGTERM, started=778)
    assert watch.cause() == UNKNOWN, "the pid is another process's"
    laid.stat("Z", 0)
    assert watch.cause() == ("exit status 0", None)
    laid.write("proc/sys/kernel/random/boot_id", "boot-2\n")
    assert rebooted(watch.identity, laid.root)


@pytest.mark.parametrize("text", [0, 1])
def test_an_exit_code_that_may_not_be_seen_is_no_good_end(laid: Laid, text: int) -> None:
    laid.stat("R", 0, text=text)
    watch = Watch(record(PID, laid.root), laid.root)
    laid.stat("Z", 0, text=0)
    assert watch.cause() == UNKNOWN
    laid.stat("Z", signal.SIGKILL, text=0)
    assert watch.cause() == ("SIGKILL, cause unknown", 9)


def test_without_proc_it_asks_ps_and_sysctl(tmp_path: Path, monkeypatch: Any) -> None:
    """The commands are stand-ins that print what macOS prints."""
    monkeypatch.setattr(processes, "_open_pidfd", lambda pid: None)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)

    def answers(name: str, text: str, status: int = 0) -> None:
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {status}\n")
        file.chmod(0o755)

    answers("ps", "S+   Mon Jan  5 10:00:00 2026    \\n")
    answers("sysctl", "0A1B-2C3D\\n{ sec = 1767600000, usec = 1 } Mon Jan  5 08:00:00 2026\\n")
    root = tmp_path / "empty"
    watch = Watch(record(PID, root), root)
    assert watch.identity == {
        "host": socket.gethostname(),
        "boot": "0A1B-2C3D",
        "pid": PID,
        "started": "Mon Jan  5 10:00:00 2026",
    }
    assert state_of(watch.identity, root) == "alive"
    answers("ps", "Z+   Mon Jan  5 10:00:00 2026    \\n")
    assert state_of(watch.identity, root) == "ended"
    answers("ps", "", status=1)
    assert state_of(watch.identity, root) == "ended"
    assert watch.cause() == UNKNOWN
    with pytest.raises(ProcessLookupError):
        identity(PID, root)
    answers("sysctl", "{ sec = 1767700000, usec = 1 } Tue Jan  6 08:00:00 2026\\n", status=1)
    assert rebooted(watch.identity, root)


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A memory cgroup of 64 MB."""
    problems = []
    paths = {line.split(":")[1]: line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    candidates = [(f"/sys/fs/cgroup/memory{paths.get('memory', '/')}", "memory.limit_in_bytes")]
    # v2 does not let a cgroup have both processes and limited children: so above the own one too.
    inside = Path(paths.get("", "/").lstrip("/"))
    candidates += [(f"/sys/fs/cgroup/{part}", "memory.max") for part in (inside, *inside.parents)]
    for parent, limit in candidates:
        cgroup = Path(parent) / f"pokebattle-test-{os.getpid()}"
        if not (Path(parent) / "cgroup.procs").exists():
            continue
        try:
            cgroup.mkdir()
        except OSError as error:
            problems.append(str(error))
            continue
        try:
            (cgroup / limit).write_text(str(64 << 20))
            if (cgroup / "memory.swap.max").exists():
                (cgroup / "memory.swap.max").write_text("0")
        except OSError as error:
            problems.append(str(error))
            cgroup.rmdir()
            continue
        break
    else:
        pytest.skip(f"no memory cgroup can be made here: {'; '.join(problems) or 'none is mounted'}")
    yield cgroup

    def removed() -> bool:
        with contextlib.suppress(OSError):
            cgroup.rmdir()
        return not cgroup.exists()

    wait_for(removed, f"{cgroup} to be removed", 5)


@LINUX
@pytest.mark.parametrize("reaped", [False, True])
def test_a_real_out_of_memory_kill(small_cgroup: Path, child: Any, reaped: bool) -> None:
    if reaped:
        needs_exit_in_pidfd()
    enter = f"open({str(small_cgroup / 'cgroup.procs')!r}, 'w').write('0'); print('in', flush=True); input()\n"

    def inside(code: str) -> tuple[Child, dict[str, Any]]:
        one = child(*python(enter + code))
        assert one.process.stdout.readline() == b"in\n"
        recorded = record(one.pid)
        if reaped:
            one.reap_at_once()
        return one, recorded

    one, recorded = inside("")
    watch = Watch(recorded)
    os.kill(one.pid, signal.SIGKILL)
    one.notice_end()
    assert watch.cause() == ("SIGKILL, cause unknown", 9), "the memory sufficed"

    one, recorded = inside("held = b'x' * (256 << 20)")
    watch = Watch(recorded)
    one.say_go()
    one.notice_end()
    assert watch.cause() == ("out of memory", 9)
    if reaped:
        one.reaper.join()
    assert Watch(recorded).cause() == ("out of memory", None if reaped else 9), "it began after the end"


@LINUX
@pytest.mark.parametrize("late", [False, True], ids=["sender in time", "sender late"])
def test_lack_of_memory_is_reported_as_the_cause(
    small_cgroup: Path, tracked: Any, make_notebook: Any, late: bool
) -> None:
    """papermill, kernel and sender are in the cgroup; the kernel is by far the largest of them.

    A sender that the busy machine lets begin late finds neither kernel nor papermill.
    """
    (limit,) = (file for file in small_cgroup.iterdir() if file.name in {"memory.max", "memory.limit_in_bytes"})
    limit.write_text(str(400 << 20))
    if late:
        slow = tracked.folder / "python"
        slow.write_text(f'#!/bin/sh\ncase "$*" in *nbtrack.sender*) sleep 6;; esac\nexec {sys.executable} "$@"\n')
        slow.chmod(0o755)
        (tracked.folder / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(slow)!r}\n")
        tracked.env["PYTHONPATH"] += f":{tracked.folder}"
    name = f"greedy{late}"
    tracked.write(f"{name}.ipynb", make_notebook("x = 1", "held = b'x' * (800 << 20)"))
    command = f"echo $$ > {small_cgroup / 'cgroup.procs'}; exec {sys.executable} -m papermill {name}.ipynb out.ipynb"
    done = subprocess.run(["sh", "-c", command], cwd=tracked.folder, env=tracked.env, capture_output=True, check=False)
    assert b"DeadKernelError" in done.stderr
    (run,) = tracked.runs(name)
    assert (run.info.status, run.data.tags["pokebattle.cause"]) == ("KILLED", "out of memory")


def test_a_start_that_takes_long_says_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    started = {"uri": "http://127.0.0.1:9"}
    monkeypatch.setattr(server, "process", lambda record: record)
    answers = iter(["no answer", "no answer", None])
    monkeypatch.setattr(server, "QUIET", 0.0)
    server.await_answer(started, lambda: next(answers), RuntimeError)
    assert capfd.readouterr().err.count("waiting for http://127.0.0.1:9, for up to") == 1
