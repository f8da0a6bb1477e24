"""`fullsendd serve`: listens, accepts peers, and shuts down in order.

Shutdown is one sequence (`Daemon.run`). Stop listening. Send an error to idle peers. Give running streams a limited
time, then cancel them. What had arrived by then stays as partials.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import logging
import os
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from fullsend_cli.memory import trim
from fullsend_protocol.shared.addresses import join_address
from fullsend_protocol.shared.errors import ErrorCode
from fullsend_protocol.shared.units import printable
from fullsend_protocol.wire import certificate
from fullsend_protocol.wire.connection import Role
from fullsend_receiver.access.config import ReceiverSettings, parse_address, reload
from fullsend_receiver.access.identity import server_context
from fullsend_receiver.access.senders import Refused, Sender, SenderTable
from fullsend_receiver.arrival.counters import Counters
from fullsend_receiver.arrival.expiry import discard_old
from fullsend_receiver.arrival.free_space import Room
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.daemon import local_socket, systemd
from fullsend_receiver.daemon.claims import Claims
from fullsend_receiver.daemon.copy_process import CopyProcess
from fullsend_receiver.daemon.file_reading import FileReader
from fullsend_receiver.daemon.live import LiveTransfers
from fullsend_receiver.daemon.local_session import LocalAnswers, LocalServer
from fullsend_receiver.daemon.merge_process import MergeProcess
from fullsend_receiver.daemon.metrics_page import MetricsPage
from fullsend_receiver.daemon.metrics_server import MetricsServer
from fullsend_receiver.daemon.monitoring import Consumer, Monitoring
from fullsend_receiver.daemon.proving import ChainHasher
from fullsend_receiver.daemon.rate_limit import Limiter
from fullsend_receiver.daemon.session import Session, SharedState
from fullsend_receiver.daemon.shared_look import SharedLook
from fullsend_receiver.daemon.store_watch import StoreWatch
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import DaemonStarted, DaemonStopped, SettingsRead
from fullsend_receiver.maintenance.checks import Checks, ScrubSettings
from fullsend_receiver.maintenance.clock import Clock, SystemClock
from fullsend_receiver.maintenance.daily_prune import DailyPrune
from fullsend_receiver.maintenance.plans import rules_of
from fullsend_receiver.maintenance.prune_records import troubles
from fullsend_receiver.monitor.alarm_log import AlarmLog
from fullsend_receiver.monitor.overview import Overview
from fullsend_receiver.monitor.report_file import ReportWriter
from fullsend_receiver.monitor.survey import DaemonSource, Surveyor
from fullsend_receiver.store.api import Claim, Store
from fullsend_receiver.store.durable import open_lock
from fullsend_receiver.store.errors import StoreError, StoreFull, StoreReadOnly, disk_error, folder_error
from fullsend_receiver.store.fitness import require
from fullsend_receiver.store.workers import Workers, run
from fullsend_transport.channel import Channel
from fullsend_transport.turns import LoopTurns

log = logging.getLogger("fullsendd")

_BACKLOG: Final = 128
#: accept() fails with these during a temporary shortage of resources (as in trio's listeners).
_SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
#: Linux reports at accept() what has happened to a connection before it was accepted (accept(2)).
_PASSED_ON: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH", "ENETUNREACH"),
        *("EOPNOTSUPP", "EPERM"),
    )
    if hasattr(errno, name)
)
_SHORTAGE_PAUSE: Final = 0.1
#: Seconds between two searches for old partials.
_SWEEP_EVERY: Final = 600.0
#: Seconds between two releases of memory, and between two checks of the sender table outside of connections, at least.
_HOUSEKEEPING_EVERY: Final = 1.0
#: Seconds between two tries to listen for requests of metrics, such as while another process has the port.
_LISTEN_AGAIN: Final = 60.0
#: The keys of receiver.toml by which a merge that is running may do what it must not any more, or too slowly.
_OF_MERGES: Final = frozenset({"retention", "merge", "rebase-after", "merge-rate", "when-suspicious"})


class Daemon:
    """The running daemon; implements the sessions' Gate, and the Reopener of the store's watch."""

    def __init__(
        self,
        settings: ReceiverSettings,
        store: Store,
        clock: Clock | None = None,
        *,
        reread: Callable[[], ReceiverSettings] | None = None,
        merge_command: Sequence[str] = (),
        hash_command: Sequence[str] = (),
        file_command: Sequence[str] = (),
        copy_command: Sequence[str] = (),
    ) -> None:
        """Does nothing before `run`. `clock`: by which streams are pruned, None: this host's; `reread`: reads the
        settings again at a reload, blocks, and raises what is wrong with them; None: they never change;
        `merge_command`: the program that merges, with its arguments, empty: nothing is merged; `hash_command`: the one
        that prints the SHA-256 of a merge, empty: no sender can ask for it; `file_command`: this program, which lists
        and gives back files, empty: the same; `copy_command`: the one that copies into another store, empty: it never
        runs.
        """
        self._settings = settings
        self._reread = reread
        self._told_to_reload = asyncio.Event()
        self._status = ""  # as `systemctl status` shows it
        self._store = store
        try:
            self._table = SenderTable(store)
        except StoreError as error:
            log.error("no sender is admitted until the sender table can be read: %s", error)  # noqa: TRY400
            self._table = SenderTable(store, fault=error)
        self._context = server_context(store, self._table.certificates)
        self._table_look = SharedLook(self._reread_table)
        self._table_fault = ""
        self._limiter = Limiter(settings.tries_per_minute)
        self._tasks: dict[asyncio.Task[None], Session | None] = {}  # None: still in the TLS handshake
        self._unidentified: dict[asyncio.Task[None], None] = {}  # oldest first
        self._some_gone = False  # connections have ended since memory was last released
        self._turns: LoopTurns | None = None  # None before `run`
        self._stopping = asyncio.Event()
        cpus = len(os.sched_getaffinity(0))
        self._workers = Workers(
            cpu=ThreadPoolExecutor(cpus, thread_name_prefix="cpu"),
            # These wait for a disk: one for each stream that may be in fsync, up to a limit.
            disk=ThreadPoolExecutor(32, thread_name_prefix="disk"),
            scrub=ThreadPoolExecutor(1, thread_name_prefix="scrub"),
        )
        # A thread of its own: admission of peers must not wait until one of 32 streams has completed its fsync.
        self._table_reader = ThreadPoolExecutor(1, thread_name_prefix="table")
        self._catalogues = catalogues = Catalogues(store)
        self._checks = Checks(
            catalogues, self._workers, ScrubSettings(every=settings.scrub_every, rate=settings.scrub_rate)
        )
        self._rules = rules = rules_of(settings)
        self._rules_since = time.time()
        # A thread of its own: a prune of a large store takes minutes.
        self._pruning = ThreadPoolExecutor(1, thread_name_prefix="prune")
        self._merges = MergeProcess(store, merge_command, self._pruning)
        self._daily = DailyPrune(
            store, rules, settings.prune_at, clock or SystemClock(), self._pruning, pruned=self._begin_merges
        )
        # A thread of its own: what is noted of copies is read while a prune runs.
        self._copy_thread = ThreadPoolExecutor(1, thread_name_prefix="copy")
        self._copies = CopyProcess(store, settings.copies, copy_command, self._copy_thread)
        self._room = room = Room(
            settings.min_free,
            lambda: self._workers.run_to_end(store.space),
            quota_of=self._quota_of,
            stored_of=lambda sender: catalogues.stored_bytes(self._workers.disk, sender),
            make_room=self._make_room,
        )
        # A thread of its own: a look at a large store takes seconds.
        self._monitoring_thread = ThreadPoolExecutor(1, thread_name_prefix="monitor")
        alarm_log = AlarmLog(store.documents)
        source = DaemonSource(catalogues)
        surveyor = Surveyor(
            store,
            lambda: self._settings,
            source,
            rules_since=lambda: self._rules_since,
            keeps=True,
            clocks=clock,
            before=alarm_log.known,
        )
        self._counters = Counters()
        self._metrics = MetricsPage(self._count, settings.metrics_file, settings.metrics_datasets)
        report = ReportWriter(store, lambda: self._settings, source)
        self._overview: Overview | None = None
        consumers: list[Consumer] = [alarm_log.note, self._keep_overview, self._metrics.publish, report.note]
        self._monitoring = Monitoring(surveyor, self._monitoring_thread, consumers, alarm_log.note_failure)
        self._watch = StoreWatch(store, room, settings.warn_at, self._table_reader, self)
        self._recovered = False  # what the last process left is completed, or removed
        self._commands = asyncio.Event()  # whether to listen for commands was decided anew
        self._hears_commands = True
        self._lock = -1  # held: no other daemon serves this store; -1: not held, while the store is away
        live = LiveTransfers()
        self._local = LocalServer(LocalAnswers(catalogues, self._workers, self._checks, live), silence=settings.silence)
        self._shared = SharedState(
            catalogues,
            self._workers,
            self._checks,
            self,
            room,
            settings.warn_at,
            ChainHasher(hash_command),
            FileReader(file_command),
            troubles=self._find_troubles,
            live=live,
            counters=self._counters,
            overview=lambda: self._overview,
        )

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. At SIGHUP, read the settings again, and examine the whole store.

        Raises: StoreError (unfit, or served by another daemon), OSError.
        """
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_exception)
        self._turns = LoopTurns(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._told_to_reload.set)
        self._lock = _serve_lock(self._store)
        try:
            try:
                self._store.check_fitness()
                require(self._store.examine(), self._store.where)
            except (StoreFull, StoreReadOnly) as error:  # stored streams are still readable
                log.warning("%s", error)
            self._recover()
            sockets = _passed_sockets() or await _listen(self._settings.listen)
            accepting = [asyncio.create_task(self._accept(sock, self._let_in)) for sock in sockets]
            where = ", ".join(_describe(sock.getsockname()) for sock in sockets)
            accepting.append(asyncio.create_task(self._accept_commands(self._listen_locally())))
            helpers = [
                *accepting,
                asyncio.create_task(self._housekeeping()),
                asyncio.create_task(self._sweep()),
                asyncio.create_task(self._relook()),
                asyncio.create_task(self._checks.run()),
                asyncio.create_task(self._watch.run()),
                asyncio.create_task(self._daily.run()),
                asyncio.create_task(self._merges.run()),
                asyncio.create_task(self._copies.run()),
                asyncio.create_task(self._monitoring.run()),
                asyncio.create_task(self._reload_when_told()),
                asyncio.create_task(self._serve_metrics(self._settings.metrics_listen)),
                asyncio.create_task(_feed_watchdog()),
            ]
            text = f"listening on {where}, store {self._store.where}"
            emit(DaemonStarted(text=text, listen=where, store=self._store.where))
            self._status = f"listening on {where}"
            systemd.notify("READY=1", f"STATUS={self._status}")
            try:
                await self._until_stopped(helpers)
            finally:
                systemd.notify("STOPPING=1", "STATUS=stopping")
                self._daily.abandon()
                for task in helpers:
                    task.cancel()
                await asyncio.wait(accepting)
                for sock in sockets:
                    sock.close()
                with contextlib.suppress(StoreError, OSError):
                    self._store.check_mounted()
                    local_socket.remove(self._store)
                await asyncio.gather(self._local.end(), self._end_sessions())
                await asyncio.wait(helpers)  # last: their threads may wait for the disk, which must not delay the rest
                emit(DaemonStopped(text="stopped"))
        finally:
            workers = self._workers
            own = (self._table_reader, self._pruning, self._copy_thread, self._monitoring_thread)
            for executor in (workers.cpu, workers.disk, workers.scrub, *own):
                executor.shutdown()
            self._unlock()

    def _keep_overview(self, overview: Overview) -> None:
        """Keep the last one, for the questions of senders. Called in the thread that makes them."""
        self._overview = overview

    def _recover(self) -> None:
        """Complete what the last process left, if the store can be written to."""
        try:
            if self._store.is_read_only():
                return
            for line in self._store.recover():
                log.info("%s", line)
            self._recovered = True
        except OSError as error:
            log.error("what the last process left is not completed: %s", disk_error(error))  # noqa: TRY400

    async def release(self) -> None:
        """Close what this daemon has open in the store all the time: the lock, and the socket for commands."""
        self._hears_commands = False
        self._commands.set()
        self._unlock()

    async def reopen(self, *, writable: bool) -> bool:
        """Do what is done at a start. See `Reopener.reopen`."""
        try:
            self._lock_again()
        except OSError as error:
            log.debug("%s", disk_error(error))
            return False
        self._catalogues.distrust()
        self._hears_commands = True
        self._commands.set()
        if writable:
            async with self._shared.sweeping:
                await self._recover_when_idle()
        return True

    def _lock_again(self) -> None:
        """Hold the lock in the folder as it is now: it may be another inode. Raises: StoreError, OSError."""
        if self._lock >= 0:
            found = open_lock(_lock_file(self._store))
            same = os.path.sameopenfile(self._lock, found)
            os.close(found)
            if same:
                return
            self._unlock()
        self._lock = _serve_lock(self._store)

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    async def _recover_when_idle(self) -> None:
        """Do what could not be done at the start. The caller holds `sweeping`, so that no stream begins meanwhile."""
        if not (self._recovered or self._shared.arriving or self._shared.deleting):
            await self._workers.run_to_end(self._recover)

    async def _accept_commands(self, listening: socket.socket | None) -> None:
        """Accept commands on this host until cancelled, except while the store is away. Then listen anew."""
        while True:
            tasks: list[asyncio.Task[Any]] = [asyncio.create_task(self._commands.wait())]
            if listening is not None:
                tasks.append(asyncio.create_task(self._accept(listening, self._local.let_in)))
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                if listening is not None:
                    listening.close()
            self._commands.clear()
            listening = self._listen_locally() if self._hears_commands else None

    def _listen_locally(self) -> socket.socket | None:
        """Listen for commands on this host, if possible: otherwise they read the disk themselves."""
        try:
            return local_socket.listen(self._store)
        except (StoreError, OSError) as error:
            log.warning("commands on this host must read the store themselves: %s", error)
            return None

    async def _until_stopped(self, helpers: list[asyncio.Task[None]]) -> None:
        """Wait for the signal. A helper that fails ends the daemon, because nothing else would show the failure."""
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([stopped, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            stopped.cancel()

    async def _end_sessions(self) -> None:
        """Send an error to idle peers, give the others `shutdown_grace` seconds, then cancel them."""
        for task, session in self._tasks.items():
            if session is not None:
                session.farewell(ErrorCode.SHUTDOWN, "the receiver is shutting down; try again later")
            if session is None or session.idle:
                task.cancel()
        if self._tasks:
            log.info("waiting up to %g s for %d connections", self._settings.shutdown_grace, len(self._tasks))
            await asyncio.wait(self._tasks, timeout=self._settings.shutdown_grace)
        if self._tasks:
            log.info("cancelling the remaining %d connections", len(self._tasks))
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)

    # --- accepting peers -----------------------------------------------------------------------------------

    async def _accept(self, listening: socket.socket, let_in: Callable[[socket.socket, Any], None]) -> None:
        """Pass each connection that arrives to `let_in`, with its address, until cancelled. What has not been accepted
        by then stays in the backlog.

        Not `loop.sock_accept`: if that is cancelled while a connection arrives, the connection is never closed.
        """
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        loop.add_reader(listening, arrived.set)
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                try:
                    sock, address = listening.accept()
                except BlockingIOError:  # the peer has left again, or another process has accepted it
                    continue
                except OSError as error:
                    if error.errno in _PASSED_ON:
                        continue
                    if error.errno not in _SHORTAGE:
                        raise
                    log.warning("cannot accept connections at the moment: %s", error.strerror)
                    await asyncio.sleep(_SHORTAGE_PAUSE)
                    continue
                sock.setblocking(False)
                let_in(sock, address)
        finally:
            loop.remove_reader(listening)

    def _let_in(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        """Begin to serve a connection. If too many peers have not identified themselves yet, drop the oldest."""
        if len(self._unidentified) >= self._settings.unidentified:
            oldest = next(iter(self._unidentified))
            self._unidentified.pop(oldest)
            oldest.cancel()
        self._counters.connections += 1
        task = asyncio.create_task(self._serve(sock, address[0]))
        self._tasks[task] = None
        self._unidentified[task] = None
        task.add_done_callback(self._gone)

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._unidentified.pop(task, None)
        self._some_gone = True
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a connection ended by a bug in fullsendd", exc_info=error)

    async def _serve(self, sock: socket.socket, address: str) -> None:
        """Serve one connection, from the TLS handshake on."""
        identify_by = asyncio.get_running_loop().time() + self._settings.identify_within
        try:
            async with asyncio.timeout_at(identify_by):
                channel = await self._shake_hands(sock)
        except TimeoutError:
            log.info("%s: no TLS connection within %g s", address, self._settings.identify_within)
            return
        except OSError as error:
            # A certificate that is not enrolled ends here, too: the TLS layer refuses it.
            log.info("%s: no TLS connection: %s", address, str(error) or type(error).__name__)
            return
        try:
            peer = self._who(channel)
        except Refused as refusal:
            log.warning("%s: %s", address, refusal)
            await Session(self._shared, channel, address, None).refuse(refusal.code, str(refusal))
            return
        session = Session(self._shared, channel, address, peer)
        task = asyncio.current_task()
        if task is not None:
            self._tasks[task] = session
        await session.run(identify_by)

    async def _shake_hands(self, sock: socket.socket) -> Channel:
        """Make a connection a TLS connection, with the present sender table.

        Raises: OSError (TLS errors are such); the socket is closed then, and after a cancellation.
        """
        loop = asyncio.get_running_loop()
        channel = Channel(
            Role.RECEIVER,
            "the sender",
            silence=self._settings.silence,
            heartbeat_every=self._settings.heartbeat_every,
            traffic=self._counters.traffic,
            turns=self._turns,
        )
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await self._table_look.ask()
            await loop.connect_accepted_socket(
                lambda: channel, sock, ssl=self._context, ssl_handshake_timeout=self._settings.identify_within
            )
        except BaseException:
            sock.close()
            raise
        return channel

    def _who(self, channel: Channel) -> Sender | None:
        """Look the peer's certificate up; its chain has no meaning. Raises: Refused."""
        der = channel.certificate
        return self._table.identify(certificate.fingerprint(der)) if der else None

    # --- Gate ----------------------------------------------------------------------------------------------

    def admit(self, session: Session, sender: Sender) -> None:
        """Count a connection for its sender. Raises: Refused (LIMIT)."""
        counts = Counter(each.peer.name for each in self._tasks.values() if each and each.admitted and each.peer)
        if counts[sender.name] >= self._settings.connections_per_sender:
            msg = f"sender {sender.name} already has {self._settings.connections_per_sender} open connections"
            raise Refused(ErrorCode.LIMIT, msg)
        if counts.total() >= self._settings.connections:
            msg = f"{self._settings.connections} connections are already open"
            raise Refused(ErrorCode.LIMIT, msg)
        session.admitted = True
        for task, each in self._tasks.items():
            if each is session:
                self._unidentified.pop(task, None)

    def may_try(self, address: str) -> bool:
        """Whether this address may send `join` or `known?` now; counts the attempt."""
        return self._limiter.may_try(address, time.monotonic())

    def forgive(self, address: str) -> None:
        """Do not count the last attempt of this address: it was legitimate."""
        self._limiter.forgive(address)

    def status(self, fingerprint: str) -> str:
        """Answer `known?`, by the table as of the start of the connection, or later."""
        return self._table.status(fingerprint)

    async def table_changed(self) -> None:
        """A join has changed the sender table."""
        await self._table_look.ask()

    def read_only_seen(self) -> None:
        """The store's disk could not be written to because it is read-only."""
        self._watch.suspect_read_only()

    async def _reread_table(self) -> None:
        """If the sender table has changed: use it for new connections, and end those that it no longer allows."""
        try:
            found = await run(self._table_reader, self._read_table)
        except (OSError, StoreError) as error:
            # Perhaps a person has edited it. The last good one is used until it is readable. Log this once.
            if str(error) != self._table_fault:
                log.error("the sender table is not used, the last good one stays: %s", error)  # noqa: TRY400
            self._table_fault = str(error)
            return
        self._table_fault = ""
        if found is not None:
            self._table, self._context = found
            self._end_revoked()

    def _read_table(self) -> tuple[SenderTable, ssl.SSLContext] | None:
        """Return the table and its TLS context if the table has changed. Blocks on the disk."""
        if not self._table.changed():
            return None
        table = SenderTable(self._store)
        return table, server_context(self._store, table.certificates)

    def _end_revoked(self) -> None:
        for task, session in self._tasks.items():
            if session is None or session.peer is None:
                continue
            if self._table.status(session.peer.fingerprint) != "enrolled":
                log.warning("%s: revoked; its connection ends", session.peer.name)
                session.farewell(ErrorCode.REVOKED, f"the certificate of sender {session.peer.name} has been revoked")
                task.cancel()

    async def _housekeeping(self) -> None:
        """Notice changes of the sender table between connections, and release memory after connections."""
        passed = 0.0
        while True:
            await asyncio.sleep(_HOUSEKEEPING_EVERY)
            passed += _HOUSEKEEPING_EVERY
            if passed >= self._store.capabilities.look_every:
                passed = 0.0
                await self._table_look.ask()
            if self._some_gone:
                self._some_gone = False
                await run(self._table_reader, partial(_tidy, not self._tasks))

    async def _sweep(self) -> None:
        """Discard old partials at intervals."""
        shared = self._shared
        while True:
            try:
                async with shared.sweeping:
                    await self._recover_when_idle()
                    shared.begun = {*shared.arriving}
                # Streams begin meanwhile: a look at a bucket takes time. To its end, even if this is cancelled: no
                # stream may begin while its partial is being deleted.
                claims = Claims(shared, asyncio.get_running_loop())
                left, aside = await self._workers.run_to_end(partial(self._discard_old, claims.claim))
                self._room.count(left, aside, but=shared.begun)
            except Exception as error:  # noqa: BLE001 - a disk, or one file in the store, must not end the daemon
                log.warning("cannot look for old partials: %s: %s", type(error).__name__, error)
            await asyncio.sleep(_SWEEP_EVERY)

    def _discard_old(self, claim: Claim) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
        """Discard old partials. Returns: by sender the bytes of those that stay, by key, and of what is set aside."""
        settings = self._settings
        left = discard_old(
            self._store,
            self._shared.arriving,
            keep=settings.partial_keep,
            damaged_keep=settings.damaged_keep,
            most=settings.partial_max,
            claim=claim,
        )
        return left, self._store.aside()

    def _quota_of(self, sender: str) -> int | None:
        """Return the present quota of a sender in bytes; None: it has none."""
        return self._settings.quota_of(sender)

    async def _make_room(self, wanted: int, sender: str | None) -> int:
        """Remove old streams, if the policy allows it. See `MakeRoom`."""
        return await self._daily.make_room(wanted, sender, early=self._settings.when_full == "prune-early")

    def _begin_merges(self) -> None:
        """Merge what the policy allows, after a daily prune."""
        if self._rules is not None and self._rules.merging is not None:
            self._merges.begin()

    def _find_troubles(self, sender: str) -> list[str]:
        """Return what keeps prunes of a sender from their work. Blocks."""
        if self._rules is None:
            return []
        return troubles(self._store, sender, now=time.time(), since=self._rules_since)

    # --- reload ----------------------------------------------------------------------------------------------

    async def _reload_when_told(self) -> None:
        """At each SIGHUP read the settings again, and trust nothing that is known of the store."""
        while True:
            await self._told_to_reload.wait()
            self._told_to_reload.clear()
            systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            log.info("SIGHUP: the next question about each sender examines all its stored streams")
            self._catalogues.distrust()
            wrong = await self._reload()
            systemd.notify("READY=1", f"STATUS={self._status}{'; ' if wrong else ''}{wrong}")

    async def _reload(self) -> str:
        """Read the settings again. Returns: what is wrong with the new ones; then the present ones stay."""
        if self._reread is None:
            return ""
        try:
            found = await run(self._table_reader, self._reread)
        except Exception as error:  # noqa: BLE001 - whatever a person has written there must not end the daemon
            wrong = f"the settings stay as they were: {printable(str(error))}"
            emit(SettingsRead(text=wrong, changed=[], refused=printable(str(error))), logging.ERROR)
            return wrong
        reloaded = reload(self._settings, found)
        self._change(reloaded.settings, frozenset(reloaded.changed))
        new = f"new values of {', '.join(reloaded.changed)}" if reloaded.changed else "no new value"
        emit(SettingsRead(text=f"receiver.toml is read again: {new}", changed=reloaded.changed))
        if reloaded.fixed:
            log.warning("receiver.toml: only a restart changes %s", ", ".join(reloaded.fixed))
        await self._watch.look_at_fills()
        return ""

    def _change(self, settings: ReceiverSettings, changed: frozenset[str]) -> None:
        """Have these settings count from now on. `changed`: the keys with new values, as in the file."""
        self._settings = settings
        if "tries-per-minute" in changed:
            self._limiter = Limiter(settings.tries_per_minute)
        if changed & {"scrub-every", "scrub-rate"}:
            self._checks.change(ScrubSettings(every=settings.scrub_every, rate=settings.scrub_rate))
        if changed:  # the rules of prunes are made of many
            self._rules = rules_of(settings)
            self._daily.change(self._rules, settings.prune_at)
        self._copies.change(settings.copies)
        if changed & {"retention", "prune-at"}:
            self._rules_since = time.time()
        if changed & _OF_MERGES and self._merges.interrupt():
            self._begin_merges()
        self._room.keep_free(settings.min_free)
        self._watch.warn_from(settings.warn_at)
        self._shared.warn_at = settings.warn_at
        self._local.silence = settings.silence
        self._metrics.change(settings.metrics_file, settings.metrics_datasets)

    # --- metrics ---------------------------------------------------------------------------------------------

    def _count(self) -> Counters:
        """Return the counters as they are now, in any thread."""
        self._counters.open_connections = len(self._tasks)
        self._counters.scrubbed_bytes = self._checks.read_bytes
        return self._counters

    async def _serve_metrics(self, address: str | None) -> None:
        """Serve the metrics over HTTP until cancelled. Backups do not wait for those who watch them: if the address is
        taken, this tries again.
        """
        server, said = MetricsServer(lambda: self._metrics.text), False
        while address is not None:
            try:
                sockets = await _listen(address)
            except StoreError as error:
                if not said:
                    log.error("the metrics are not served: %s; this is tried again each minute", error)  # noqa: TRY400
                said = True
                await asyncio.sleep(_LISTEN_AGAIN)
                continue
            log.info("metrics on http://%s/metrics", ", ".join(_describe(sock.getsockname()) for sock in sockets))
            await server.run(sockets)
        await asyncio.Event().wait()

    # --- at intervals ----------------------------------------------------------------------------------------

    async def _relook(self) -> None:
        """Examine the whole store at intervals."""
        while True:
            await asyncio.sleep(self._store.capabilities.relook_every)
            try:
                await self._catalogues.relook(self._workers.disk)
            except Exception as error:  # noqa: BLE001 - a disk, or one file in the store, must not end the daemon
                log.warning("cannot examine the store: %s: %s", type(error).__name__, error)


def _tidy(thoroughly: bool) -> None:  # noqa: FBT001 - for an executor
    """Release the memory of ended connections. `thoroughly`: collect garbage; no connection is open that it would
    delay.

    A connection and its last answer refer to each other, 2 MiB of it. The cycle collector counts objects, and these are
    few: it would not run for hours.
    """
    if thoroughly:
        gc.collect()
    trim()


async def _feed_watchdog() -> None:
    """Tell systemd that the event loop runs."""
    interval = systemd.watchdog_interval()
    while interval is not None:
        systemd.notify("WATCHDOG=1")
        await asyncio.sleep(interval)
    await asyncio.Event().wait()


def _log_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log an exception that no task has awaited: it is a bug."""
    log.error("a bug in fullsendd: %s", context["message"], exc_info=context.get("exception"))


def _passed_sockets() -> list[socket.socket]:
    """Return the listening sockets that systemd passed. Raises: StoreError if one is not TCP."""
    sockets = systemd.listen_sockets()
    for wrong in sockets:
        if wrong.family not in {socket.AF_INET, socket.AF_INET6} or wrong.type != socket.SOCK_STREAM:
            msg = f"the service manager passed a socket that is not TCP: {wrong.getsockname()!r}"
            for sock in sockets:
                sock.close()
            raise StoreError(msg)
    return sockets


async def _listen(address: str) -> list[socket.socket]:
    """Open listening sockets for HOST:PORT; for an empty host on all addresses of both families."""
    host, port = parse_address(address)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        msg = f"cannot listen on {address}: {error.strerror}"
        raise StoreError(msg) from None
    sockets = []
    for family, _type, _protocol, _name, where in sorted(set(found)):
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError:  # a kernel without IPv6
            continue
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        try:
            sock.bind(where)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            if error.errno == errno.EADDRNOTAVAIL and not host:
                continue
            msg = f"cannot listen on {_describe(where)}: {error.strerror}"
            raise StoreError(msg) from None
        sockets.append(sock)
    if not sockets:
        msg = f"cannot listen on {address}: no such address here"
        raise StoreError(msg)
    return sockets


def _describe(address: tuple[Any, ...]) -> str:
    return join_address(*address[:2])


def _serve_lock(store: Store) -> int:
    """Make sure that only one daemon serves a store. Returns: a descriptor that holds the lock. Raises: StoreError."""
    try:
        descriptor = open_lock(_lock_file(store))
    except OSError as error:
        raise folder_error(error, store.folder or store.home) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        msg = f"{store.where}: another fullsendd serves this store"
        raise StoreError(msg) from None
    return descriptor


def _lock_file(store: Store) -> Path:
    return store.home / "serving"
