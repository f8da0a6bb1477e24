"""The cost of a transfer: seconds, CPU seconds and peak memory of both ends, bytes on the wire, and other CPU use.

    CPU      of processes that we start: wait4(2), which includes those that they started and waited for; of a service
             that was there before (fullsendd, sshd): utime + stime + those of its dead children, before and after
    memory   VmHWM, the kernel's own high-water mark, summed over the processes of an end every SAMPLE seconds
    wire     what the loopback device has sent meanwhile: both directions, with TCP/IP headers and acknowledgements
    others   CPU seconds of this machine that went to neither end, nor to us: a noisy run shows in it

The producer (`cat`), which stands for `zfs send`, belongs to no end. Where each end has a core of its own, the producer
runs on that of the ZFS host, where `zfs send` would run; its CPU is still counted to neither.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

SAMPLE: Final = 0.05
#: Seconds: longer than anything here takes on any machine worth measuring. A hang must end.
TIMEOUT: Final = 900.0

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_LISTEN: Final = "0A"

#: The two ends, and what is behind the storage host if its store is in a bucket.
ZFS_HOST: Final = "ZFS host"
STORAGE: Final = "storage host"
OBJECT_STORE: Final = "object store"


class BenchError(Exception):
    """A benchmark could not run, or did not do what it should measure."""


class ChildError(BenchError):
    """A measured process ended with the exit code `code`."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Cores:
    """The core on which each end runs alone, as two hosts with one core would be; None: on all."""

    zfs_host: int | None = None
    storage: int | None = None


SHARED: Final = Cores()


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost at one end. `peak`: bytes of memory."""

    cpu: float
    peak: int


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run. `stored`: bytes that the storage host keeps of it; 0: nothing, or not known. `object_store`:
    the cost there, if the run had one.
    """

    seconds: float
    zfs_host: Cost
    storage: Cost
    wire: int
    others: float
    stored: int = 0
    object_store: Cost = Cost(0.0, 0)

    def cost(self, end: str) -> Cost:
        return {ZFS_HOST: self.zfs_host, STORAGE: self.storage, OBJECT_STORE: self.object_store}[end]


# --- processes -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Let what this thread starts meanwhile, and all that it starts, run on one core. None: changes nothing."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Child:
    """A process of the benchmark; with `source`, its stdin is a pipe that `cat SOURCE` fills, or that program."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        source: Path | Sequence[str | Path] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.argv = [str(word) for word in argv]
        self.output = b""
        self.producer_cpu = 0.0
        self._out: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `wait`
        self._err: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `wait`
        self._producer = (
            None
            if source is None
            else subprocess.Popen(
                ["cat", source] if isinstance(source, Path) else [str(word) for word in source],
                stdout=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
            )
        )
        self._process = subprocess.Popen(
            self.argv,
            stdin=subprocess.DEVNULL if self._producer is None else self._producer.stdout,
            stdout=self._out,
            stderr=self._err,
            cwd=cwd,
            start_new_session=True,
        )
        if self._producer is not None and self._producer.stdout is not None:
            self._producer.stdout.close()  # the child has it; the producer must notice when its reader ends

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def producer_pid(self) -> int | None:
        return None if self._producer is None else self._producer.pid

    @property
    def running(self) -> bool:
        """Whether it runs. Nothing is reaped: `wait` must follow."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self) -> float:
        """Wait for the end. Returns: CPU seconds of it and of all that it waited for. Raises: BenchError."""
        killer = threading.Timer(TIMEOUT, self.kill)
        killer.start()
        try:
            cpu = _reap(self._process)
            if self._producer is not None:
                self.producer_cpu = _reap(self._producer)
        except BaseException:
            self.kill()
            raise
        finally:
            killer.cancel()
            self.output = _content(self._out)
            complaint = _content(self._err).decode(errors="replace").strip()
        if self._process.returncode:
            msg = f"{' '.join(self.argv)}: exit {self._process.returncode}: {complaint[-2000:]}"
            raise ChildError(msg, self._process.returncode)
        return cpu

    def kill(self) -> None:
        """End the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class Service:
    """A daemon that runs beside the runs; a context manager. It is ready when it listens on `port`."""

    def __init__(self, argv: Sequence[str | Path], log: Path, port: int) -> None:
        self._argv = [str(word) for word in argv]
        self._log = log
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            wait_for(lambda: is_listening(self._port), f"{self._argv[0]} to listen", self._look)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def cpu(self) -> float:
        """CPU seconds so far, with those of its ended children; waits for the others to end."""
        wait_for(lambda: len(list(_tree([self.pid]))) == 1, f"the children of {self._argv[0]} to end", self._look)
        return cpu_of(self.pid)

    def resident(self) -> int:
        """Bytes of memory now."""
        return _status(self.pid, "VmRSS")

    def reset_peak(self) -> None:
        """Reset the high-water mark."""
        new_peak(self.pid)

    def _look(self) -> None:
        assert self._process is not None
        if self._process.poll() is not None:
            said = self._log.read_text(errors="replace", encoding="utf-8")[-2000:]
            msg = f"{' '.join(self._argv)}: ended: {said}"
            raise BenchError(msg)


def run_quietly(argv: Sequence[str | Path]) -> str:
    """Run something that is not measured. Returns: its stdout. Raises: BenchError."""
    done = subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        msg = f"{' '.join(map(str, argv))}: exit {done.returncode}: {done.stderr.decode(errors='replace').strip()}"
        raise BenchError(msg)
    return done.stdout.decode()


# --- runs ------------------------------------------------------------------------------------------------------


@dataclass
class Measurement:
    """A measurement from `with` to its end.

    with Measurement({STORAGE: [daemon.pid]}) as measured:
        measured.child(["fullsend", "push", "--stdin"], source=stream)
    measured.run()
    """

    roots: Mapping[str, Sequence[int]]  # of each end, by name; the processes that exist before
    cpu: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    seconds: float = 0.0
    wire: int = 0
    busy: float = 0.0

    def __enter__(self) -> Self:
        self._watched = {end: list(pids) for end, pids in self.roots.items()}
        self._peaks: defaultdict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="sampler")
        self._before = (_busy(), _wire(), time.process_time(), time.monotonic())
        self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_clock()
        self._over.set()
        self._sampler.join()
        busy, wire, own, _began = self._before
        self.busy = _busy() - busy - (time.process_time() - own)
        self.wire = _wire() - wire

    def child(
        self,
        argv: Sequence[str | Path],
        *,
        source: Path | None = None,
        cwd: Path | None = None,
        core: int | None = None,
    ) -> bytes:
        """Run a process of the ZFS host to its end, on one `core` or on all. Returns: what it printed. From any thread.
        Raises: BenchError.
        """
        with on_core(core):
            child = Child(argv, source=source, cwd=cwd)
        with self._lock:
            self._watched.setdefault(ZFS_HOST, []).append(child.pid)
        cpu = child.wait()
        with self._lock:
            self.cpu[ZFS_HOST] += cpu
            self.cpu["producer"] += child.producer_cpu
        return child.output

    def stop_clock(self) -> None:
        """Stop the clock at the first call; the rest of the block is only counted."""
        self.seconds = self.seconds or time.monotonic() - self._before[3]

    def run(self) -> Run:
        """Return the measurements, after the block."""
        zfs_host, storage, object_store = (
            Cost(self.cpu[end], self._peaks[end]) for end in (ZFS_HOST, STORAGE, OBJECT_STORE)
        )
        others = max(0.0, self.busy - sum(self.cpu.values()))
        return Run(self.seconds, zfs_host, storage, self.wire, others, object_store=object_store)

    def _sample(self) -> None:
        pause = SAMPLE
        while not self._over.wait(pause):
            begun = time.thread_time()
            with self._lock:
                watched = {end: list(pids) for end, pids in self._watched.items()}
            for end, roots in watched.items():
                self._peaks[end] = max(self._peaks[end], sum(_status(pid, "VmHWM") for pid in _tree(roots)))
            # With hundreds of processes a look at /proc is slow, and must not become part of the measurement.
            pause = max(SAMPLE, 50 * (time.thread_time() - begun))


def transfer(
    zfs_host: Sequence[str | Path],
    storage: Sequence[str | Path] | Service,
    *,
    source: Path | None = None,
    port: int | None = None,
    cwd: Path | None = None,
    cores: Cores = SHARED,
) -> tuple[Run, bytes]:
    """Measure one transfer, from the start of the ZFS host's side, which connects, to the end of both.

    `storage`: a command line that listens on `port`, or a service that does so anyway; a service runs where it was
    started, whatever `cores` says. With `source` the ZFS host's side reads it from a pipe. Returns: the run, and what
    the ZFS host's side printed.
    """
    if isinstance(storage, Service):
        return _with_service(zfs_host, storage, source, cwd, cores)
    with on_core(cores.storage):
        listener = Child(storage, cwd=cwd)
    try:
        wait_for(lambda: port is None or is_listening(port), f"{listener.argv} to listen")
        with Measurement({STORAGE: [listener.pid]}) as measured:
            output = measured.child(zfs_host, source=source, cwd=cwd, core=cores.zfs_host)
            measured.cpu[STORAGE] = listener.wait()
    except BaseException:
        listener.kill()
        raise
    return measured.run(), output


def _with_service(
    argv: Sequence[str | Path], service: Service, source: Path | None, cwd: Path | None, cores: Cores
) -> tuple[Run, bytes]:
    service.reset_peak()
    before = service.cpu()
    with Measurement({STORAGE: [service.pid]}) as measured:
        output = measured.child(argv, source=source, cwd=cwd, core=cores.zfs_host)
        measured.stop_clock()
        measured.cpu[STORAGE] = service.cpu() - before
    return measured.run(), output


# --- /proc -----------------------------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool], what: str, look: Callable[[], None] = lambda: None) -> None:
    """Wait until `condition` holds. `look` may raise if it never will. Raises: BenchError after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        look()
        if time.monotonic() > deadline:
            msg = f"waited a minute for {what}"
            raise BenchError(msg)
        time.sleep(0.005)


def is_listening(port: int) -> bool:
    """Whether a process listens on this TCP port. This makes no connection, which a peer may accept only once."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                _number, local, _remote, state, *_ = line.split()
                if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                    return True
    return False


def _reap(process: subprocess.Popen[bytes]) -> float:
    _pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _content(file: IO[bytes]) -> bytes:
    with file:
        file.seek(0)
        return file.read()


def new_peak(pid: int) -> int:
    """Reset a process's high-water mark of memory. Returns: what it was, in bytes; 0 for one that has ended."""
    peak = _status(pid, "VmHWM")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    return peak


def written(pid: int) -> int:
    """Return the bytes that a process has written, into pipes too; 0 for one that has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines():
            if line.startswith("wchar:"):
                return int(line.split()[1])
    return 0


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far, with those of its ended children."""
    return sum(map(int, _stat(pid)[11:15])) / _TICKS


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on: state, ppid, ..."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _status(pid: int, name: str) -> int:
    """Return a size from /proc/PID/status, in bytes; 0 for a process that has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) << 10
    return 0


def _tree(roots: Sequence[int]) -> Iterator[int]:
    """Yield these processes and all their descendants."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                children[int(_stat(int(entry))[1])].append(int(entry))
    todo = list(roots)
    while todo:
        pid = todo.pop()
        yield pid
        todo += children[pid]


def _busy() -> float:
    """CPU seconds that this machine has been busy, time stolen by the hypervisor included."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / _TICKS


def _wire() -> int:
    """Bytes that the loopback device has sent."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            return int(counters.split()[8])
    return 0
