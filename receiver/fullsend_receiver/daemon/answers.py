"""What a sender can ask about its own streams: pages of a list, one whole stream, the results of checking it.

Each answer is a generator of all that is sent, its end included. One method answers each question: `answers` marks
which. Threads read the disk.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath
from typing import Final, TypeVar

import fullsend_protocol
from fullsend_protocol.format.manifest import KeyedEntry, StreamEntry, copied
from fullsend_protocol.format.names import is_aside
from fullsend_protocol.shared import limits
from fullsend_protocol.shared.errors import FullsendError
from fullsend_protocol.shared.stages import StageWaits, TransferCount
from fullsend_protocol.shared.units import format_size, format_time, parse_time, plural, printable
from fullsend_protocol.wire.messages import (
    REPLACED_MAX,
    Base,
    Bases,
    BasesWanted,
    Check,
    DamagedEntry,
    DatasetStatus,
    DiffWanted,
    Done,
    Drilled,
    Drills,
    DrillsWanted,
    Entries,
    Fetch,
    FilesWanted,
    Form,
    FormWanted,
    Head,
    HeadWanted,
    Health,
    HistoryPage,
    HistoryWanted,
    List,
    Locate,
    Located,
    MergedEntry,
    MergedStreams,
    MergedWanted,
    Message,
    Noted,
    Partials,
    PartialsWanted,
    Prove,
    Proven,
    Question,
    ScrubStanding,
    Sending,
    Status,
    StatusWanted,
    Unchanged,
    Verdict,
    Verify,
    VersionsWanted,
)
from fullsend_receiver.arrival.expiry import find_partials
from fullsend_receiver.arrival.free_space import Room
from fullsend_receiver.catalogue import unchanged
from fullsend_receiver.catalogue.holdings import Holdings
from fullsend_receiver.catalogue.rows import Summary
from fullsend_receiver.catalogue.service import Catalogues
from fullsend_receiver.catalogue.standing import lost_spills, newest_state, problem_datasets
from fullsend_receiver.catalogue.streams import Catalogue, Damaged, NoSuchStream, StoredStream, aside_of
from fullsend_receiver.daemon.answering import Methods, Parts, being_read, pages
from fullsend_receiver.daemon.file_reading import FileReader, diff_arguments, versions_arguments
from fullsend_receiver.daemon.live import LiveTransfers
from fullsend_receiver.daemon.proving import ChainHasher, ChainNotHashed, Compared, head_of, to_compare
from fullsend_receiver.daemon.read_ahead import read_ahead
from fullsend_receiver.events.emit import emit
from fullsend_receiver.events.records import DrillReported, ProofDiffers, UnchangedReported
from fullsend_receiver.maintenance.checks import Checks
from fullsend_receiver.maintenance.merge_records import How, note_proof, read_merges
from fullsend_receiver.maintenance.progress import ReadPlace
from fullsend_receiver.maintenance.schedule import Survey, survey
from fullsend_receiver.maintenance.verify import Removed
from fullsend_receiver.monitor.drills import drill_entries, note_drill
from fullsend_receiver.monitor.overview import Overview
from fullsend_receiver.monitor.told_history import told_history
from fullsend_receiver.store.names import dataset_folder
from fullsend_receiver.store.playback import locate, stored_chunks
from fullsend_receiver.store.seekable import FileDamaged
from fullsend_receiver.store.workers import Workers

log = logging.getLogger("fullsendd")

_T = TypeVar("_T")
_Item = TypeVar("_Item")
#: Limits for a verdict or for health: lines, and characters in a line.
_LINES: Final = 100
_LINE: Final = 4000


METHODS: Final = Methods()


class Answers:
    """The answers for one sender, each from what is on the disk at the time of the question."""

    def __init__(
        self,
        catalogues: Catalogues,
        workers: Workers,
        checks: Checks,
        sender: str,
        room: Room,
        *,
        peer: str,
        warn_at: float | None,
        troubles: Callable[[str], list[str]] = lambda _sender: [],
        overview: Callable[[], Overview | None] = lambda: None,
        repairs: bool = False,
        scrub: bool = False,
        ivsets: bool = False,
        hasher: ChainHasher | None = None,
        file_reader: FileReader | None = None,
        live: LiveTransfers | None = None,
    ) -> None:
        """`peer`: its name in the log. `warn_at`: the used share of the disk, or of the quota, from which on the sender
        is warned; None: its version knows no warnings. `troubles`: returns what keeps prunes of a sender from their
        work; blocks. `overview`: returns the last overview, None: there is none yet. `repairs`: the peer wants to know
        what is damaged; `scrub`: how the checks of its streams stand; `ivsets`: the IV sets of raw streams. `hasher`:
        merges chains, None: nobody does. `file_reader`: reads files, None: nobody does. `live`: lists what is read
        back.
        """
        self._catalogues = catalogues
        self._store = catalogues.store
        self._workers = workers
        self._checks = checks
        self._sender = sender
        self._peer = peer
        self._repairs = repairs
        self._scrub = scrub
        self._ivsets = ivsets
        self._room = room
        self._warn_at = warn_at
        self._troubles = troubles
        self._overview = overview
        self._hasher = hasher or ChainHasher(())
        self._file_reader = file_reader or FileReader(())
        self._live = live or LiveTransfers()
        self._hold = catalogues.store.hold()

    async def close(self) -> None:
        """The connection has ended: what was read on it is held for some time yet."""
        await self._workers.run_to_end(self._hold.close)

    def answer(self, question: Question) -> Parts:
        """Return the whole answer, in order. Iterating over it raises: FullsendError, OSError."""
        return METHODS.answer(self, question)

    @METHODS.answers(BasesWanted)
    async def _bases(self, _asked: BasesWanted) -> Parts:
        now = time.time()
        holdings = await self._ask(lambda holdings: holdings)

        def find(part: Catalogue) -> Iterator[Base | DamagedEntry]:
            yield from (base_of(stored, *chain) for stored, chain in find_chains(part, now))
            if self._repairs:
                yield from find_damaged(part)

        found = (each for part in holdings.parts() for each in find(part))
        async for page in self._pages(found, limits.BASES_PAGE, _bases_page):
            yield page

    @METHODS.answers(StatusWanted)
    async def _status(self, _asked: StatusWanted) -> Parts:

        def find(holdings: Holdings) -> list[DatasetStatus]:
            seen = unchanged.last_seen(self._store, self._sender)
            found = (status for part in holdings.parts() for status in find_status(part, seen))
            all_found = count_unread(found, find_unread(holdings.troubled()))
            return sorted(all_found, key=lambda status: status.dataset)

        found = await self._ask(find)
        now = format_time(time.time())
        async for page in self._pages(found, limits.DATASETS_PAGE, lambda part: Status(now=now, datasets=[*part])):
            yield page

    @METHODS.answers(List)
    async def _entries(self, asked: List) -> Parts:
        holdings = await self._ask(lambda holdings: holdings)
        found = (
            self._told(part.entry(stored))
            for each, part in holdings.datasets(asked.dataset)
            for stored in part.select(self._sender, each)
        )
        async for page in self._pages(found, limits.ENTRIES_PAGE, lambda part: Entries(entries=[*part])):
            yield page

    def _told(self, entry: StreamEntry) -> StreamEntry:
        """Return an entry as this sender understands it."""
        keyed = entry.ivset_guid is not None or entry.base_ivset_guid is not None
        return copied(KeyedEntry, entry) if keyed and self._ivsets else entry

    @METHODS.answers(PartialsWanted)
    async def _partials(self, _asked: PartialsWanted) -> Parts:
        found = await self._workers.run(lambda: list(find_partials(self._store, self._sender)))
        async for page in self._pages(found, limits.PARTIALS_PAGE, lambda part: Partials(partials=[*part])):
            yield page

    @METHODS.answers(Locate)
    async def _located(self, wanted: Locate) -> Parts:
        stored = await self._ask(lambda holdings: holdings.find(wanted.stream))
        key = wanted.object, wanted.offset
        try:
            yield Located(raw_offset=await self._workers.run(lambda: locate(self._store, stored.file, key)))
        except FileDamaged as error:
            raise Damaged(f"{stored.file}: {error}") from None

    @METHODS.answers(Fetch)
    async def _stream(self, wanted: Fetch) -> Parts:
        offset = wanted.offset
        if is_aside(wanted.stream):
            file, manifest = await self._workers.run(lambda: aside_of(self._store, self._sender, wanted.stream))
        else:
            stored = await self._ask(lambda holdings: holdings.find(wanted.stream))
            await self._workers.run_to_end(lambda: self._read(stored))
            # A prune that did not see the hold has removed all that it chose: is it there still?
            stored = await self._ask(lambda holdings: holdings.find(wanted.stream))
            file, manifest = stored.file, await self._workers.run(lambda: stored.manifest)
        if offset > manifest.raw_bytes:
            raise Damaged(f"{file}: no chunk begins at raw offset {offset}")
        until = limits.OFFSET_END if wanted.until is None else wanted.until
        log.info("%s: reads %s%s", self._peer, file, f" from {offset}" if offset else "")
        yield Sending(manifest=manifest)
        sent = offset
        waits = StageWaits("disk", "wire")
        count = TransferCount(time.monotonic(), manifest.raw_bytes, waits)
        count.skip(offset)
        try:
            stored_ones = stored_chunks(self._store, file, offset, until)
            with self._live.running("restore", self._sender, f"{manifest.dataset}@{manifest.snapshot}", count):
                async with contextlib.aclosing(read_ahead(self._workers, stored_ones, waits)) as chunks:
                    async for chunk in chunks:
                        sent = chunk.raw_offset + chunk.raw_length
                        if sent > manifest.raw_bytes:
                            break
                        size = len(chunk.frame)
                        yield chunk
                        del chunk  # a reference during the wait for the next one would keep two in memory
                        count.raw = sent
                        count.wire += size
        except FullsendError as error:
            msg = f"{file}: {error}"
            raise Damaged(msg) from None
        if not min(until, manifest.raw_bytes) <= sent <= manifest.raw_bytes:
            msg = f"{file}: has {sent} raw bytes or more; its manifest says {manifest.raw_bytes}"
            raise Damaged(msg)
        yield Done()

    @METHODS.answers(Verify)
    async def _verdicts(self, asked: Verify) -> Parts:
        wanted = (await self._ask(lambda holdings: holdings)).select(asked.dataset)
        while (stored := await self._ask(lambda _holdings: next(wanted, None), begun=True)) is not None:
            found = await self._checks.check(stored)
            if isinstance(found, Removed):
                continue
            damage = [*found.result.damage, *(f"breaks {file}" for file in found.breaks)]
            if found.result.unreadable is not None:
                damage.append(f"not checked, and not known to be damaged by that: {found.result.unreadable}")
            yield Verdict(
                file=str(stored.file),
                dataset=stored.summary.dataset,
                snapshot=stored.summary.snapshot,
                raw_bytes=stored.summary.raw_bytes,
                damage=[line[:_LINE] for line in damage[:_LINES]],
            )

        def find(holdings: Holdings) -> list[Verdict]:
            return list(find_unread(holdings.troubled(), self._sender, asked.dataset))

        for verdict in await self._ask(find):
            yield verdict
        yield Done()

    @METHODS.answers(MergedWanted)
    async def _merged(self, asked: MergedWanted) -> Parts:
        holdings = await self._ask(lambda holdings: holdings)
        proofs = (await self._workers.run(lambda: read_merges(self._store.documents, self._sender))).proofs()
        found = (
            copied(MergedEntry, stored.summary, proven=proofs.get((stored.summary.path, stored.summary.received)))
            for each, part in holdings.datasets(asked.dataset)
            for stored in part.select(self._sender, each)
            if stored.summary.proven_by == "merge" and stored.summary.kind != "package" and part.whole(stored)
        )
        async for page in self._pages(found, limits.ENTRIES_PAGE, lambda part: MergedStreams(streams=[*part])):
            yield page

    @METHODS.answers(HeadWanted)
    async def _head(self, asked: HeadWanted) -> Parts:
        file = PurePosixPath(asked.file)
        found = await self._ask(lambda holdings: holdings.around(file=file).at(file))
        if found is None:
            msg = f"{asked.file}: is not stored any more"
            raise NoSuchStream(msg)
        yield Head(raw=await self._workers.run(lambda: head_of(self._store, file)))

    @METHODS.answers(Prove)
    async def _proven(self, asked: Prove) -> Parts:
        compared = await self._to_compare(asked.file, whole=asked.whole)
        yield Proven(result="gone", why="") if compared is None else await self._compare(asked, compared)

    async def _compare(self, asked: Prove, compared: Compared) -> Proven:
        """Compare a stream, or the full that its chain makes, with what its host sends."""
        sha256, why = compared.sha256, compared.why
        if not why and sha256 is None:
            try:
                sha256 = await self._hasher.sha256([f"{self._store.where}/{each}" for each in compared.chain])
            except ChainNotHashed as error:
                why = str(error)
            # Only if the chain is as it was: a prune or a merge may have taken a file from it.
            if await self._to_compare(asked.file, whole=asked.whole) != compared:
                return Proven(result="gone", why="")
        if why:
            return Proven(result="unknown", why=why[:_LINE])
        if sha256 != asked.sha256:
            what = "the state that its chain restores" if asked.whole else "it"
            file = str(compared.chain[-1])
            text = f"{self._peer}: {file}: {what} differs from what its host sends"
            emit(ProofDiffers(text=text, sender=self._sender, file=file), logging.WARNING)
            return Proven(result="different", why="")
        how: How = "stream" if len(compared.chain) == 1 else "state"
        await self._workers.run_to_end(partial(self._note, compared, how))
        log.info("%s: %s: is proven by its host's `zfs send` (%s)", self._peer, compared.chain[-1], how)
        return Proven(result="same", why="")

    async def _to_compare(self, file: str, *, whole: bool) -> Compared | None:
        return await self._ask(lambda holdings: to_compare(holdings, PurePosixPath(file), whole=whole))

    @METHODS.answers(FormWanted)
    async def _form(self, asked: FormWanted) -> Parts:
        compared = await self._to_compare(asked.file, whole=False)
        why = "it is not stored any more" if compared is None else compared.why
        sha256 = None
        if compared is not None and not why:
            try:
                sha256 = await self._hasher.sha256([f"{self._store.where}/{compared.chain[-1]}"], without_frees=True)
            except ChainNotHashed as error:
                why = str(error)
        yield Form(sha256=sha256, why=why[:_LINE])

    @METHODS.answers(FilesWanted)
    async def _files(self, asked: FilesWanted) -> Parts:
        stored = await self._ask(lambda holdings: holdings.find(asked.stream))
        await self._workers.run_to_end(lambda: self._read(stored))
        log.info("%s: reads files of %s", self._peer, stored.file)
        # By its file, which is this sender's, whatever the question says.
        async with contextlib.aclosing(self._file_reader.read(str(stored.file), asked)) as parts:
            async for part in parts:
                yield part

    @METHODS.answers(DiffWanted)
    async def _diff(self, asked: DiffWanted) -> Parts:
        files = [await self._to_read(each) for each in (asked.stream, asked.other)]
        log.info("%s: compares %s with %s", self._peer, *files)
        async with contextlib.aclosing(self._file_reader.run(self._sender, diff_arguments(files, asked))) as parts:
            async for part in parts:
                yield part

    async def _to_read(self, stream: str) -> str:
        """Find a stream, and hold it. Returns: its file, which is this sender's."""
        stored = await self._ask(lambda holdings: holdings.find(stream))
        await self._workers.run_to_end(lambda: self._read(stored))
        return str(stored.file)

    @METHODS.answers(VersionsWanted)
    async def _versions(self, asked: VersionsWanted) -> Parts:
        dataset = await self._ask(lambda holdings: self._dataset_of(holdings, asked.dataset))
        if dataset is None:
            msg = f"{asked.dataset}: nothing of that name is stored (see `list`)"
            raise NoSuchStream(msg)
        log.info("%s: looks for versions of a file in %s", self._peer, dataset)
        arguments = versions_arguments(f"{self._sender}/{dataset}", asked)
        async with contextlib.aclosing(self._file_reader.run(self._sender, arguments)) as parts:
            async for part in parts:
                yield part

    @METHODS.answers(Check)
    async def _health(self, _asked: Check) -> Parts:

        holdings = await self._ask(lambda holdings: holdings)
        problems = await self._ask(lambda _holdings: self._find_problems(holdings), begun=True)
        # Other questions about the sender do not wait for this.
        standing = await self._workers.run(lambda: self._survey(holdings))
        problems += find_unchecked(standing, stopped=self._checks.stopped)
        disk, *quotas = fills = await self._room.fills(self._sender)
        if disk.refuses:
            problems.insert(0, f"only {format_size(max(0, disk.free))} are free; pushes are refused")
        problems[:0] = [f"{fill}; pushes are refused" for fill in quotas if fill.refuses]
        if await self._workers.run(lambda: self._store.is_read_only(by_writing=True)):
            problems.insert(0, "the store's disk is mounted read-only; pushes are refused")
        warnings: list[str] = []
        if self._warn_at is not None:
            warnings = [str(fill) for fill in fills if fill.is_above(self._warn_at) and not fill.refuses]
            if standing.behind:
                oldest = format_time(standing.oldest or 0.0)
                warnings.append(f"the scrub is behind: a stream was last checked, or received, at {oldest}")
        yield Health(
            program=f"fullsendd {fullsend_protocol.__version__}",
            free_bytes=max(0, disk.free),
            problems=[line[:_LINE] for line in problems[:_LINES]],
            warnings=[line[:_LINE] for line in warnings],
            scrub=scrub_standing(standing, self._checks.place, self._sender) if self._scrub else None,
        )

    @METHODS.answers(Unchanged)
    async def _noted(self, said: Unchanged) -> Parts:
        noted = await self._ask(lambda holdings: unchanged.note(holdings, self._sender, said.datasets))
        for each in noted:
            text = f"{self._peer}: {printable(each.dataset)} is unchanged"
            emit(UnchangedReported(text=text, sender=self._sender, dataset=each.dataset, guid=each.guid))
        yield Noted()

    @METHODS.answers(HistoryWanted)
    async def _history(self, _asked: HistoryWanted) -> Parts:
        overview = self._overview()
        found = () if overview is None else told_history(overview, self._sender)
        at = format_time(0.0 if overview is None else overview.at)
        async for page in self._pages(found, limits.HISTORIES_PAGE, lambda part: HistoryPage(at=at, datasets=[*part])):
            yield page

    @METHODS.answers(Drilled)
    async def _drilled(self, said: Drilled) -> Parts:
        await self._ask(lambda holdings: note_drill(holdings, self._sender, said))
        text = printable(f"{self._peer}: drill of {said.dataset}@{said.snapshot}: {said.text}")
        about = {"sender": self._sender, "dataset": said.dataset, "snapshot": said.snapshot}
        seconds, level = said.milliseconds / 1000, logging.INFO if said.ok else logging.WARNING
        emit(DrillReported(text=text, ok=said.ok, raw_bytes=said.raw_bytes, seconds=seconds, **about), level)
        yield Noted()

    @METHODS.answers(DrillsWanted)
    async def _drills(self, _asked: DrillsWanted) -> Parts:
        found = await self._ask(lambda _holdings: drill_entries(self._store, self._sender))
        now = format_time(time.time())
        async for page in self._pages(found, limits.DRILLS_PAGE, lambda part: Drills(now=now, drills=[*part])):
            yield page

    def _note(self, compared: Compared, how: How) -> None:
        documents, file = self._store.documents, compared.chain[-1]
        note_proof(documents, self._sender, file, received=compared.received, how=how, now=time.time())

    # --- shared --------------------------------------------------------------------------------------------

    def _find_problems(self, holdings: Holdings) -> list[str]:
        return [*map(str, holdings.problems), *self._troubles(self._sender)]

    def _dataset_of(self, holdings: Holdings, named: str) -> str | None:
        """Return the dataset of a name, also if all that is stored of it cannot be listed; None: nothing is stored."""
        stored = next(holdings.select(named), None)
        if stored is not None:
            return stored.summary.dataset
        folder = str(dataset_folder(self._sender, named))
        return named if any(each.hides(folder) for each in holdings.problems) else None

    def _survey(self, holdings: Holdings) -> Survey:
        """Find out how the checks of the sender's streams stand."""
        results = ((stored.summary, part.checked(stored)) for part in holdings.parts() for stored in part.streams)
        return survey(results, now=time.time(), every=self._checks.every)

    def _read(self, stored: StoredStream) -> None:
        """Hold a stream for as long as this connection is open: a restore will need those that build on it."""
        try:
            self._hold.add(stored.file)
            self._store.wait_for_removals()
        except OSError as error:  # a disk that is full, or read-only, must not prevent a restore
            log.warning("%s: %s is read, and a prune cannot see that: %s", self._peer, stored.file, error)

    async def _pages(
        self, items: Iterable[_Item], most: int, page_of: Callable[[Sequence[_Item]], Message]
    ) -> AsyncGenerator[Message, None]:
        """Yield pages of at most `most` items, and `done`."""
        async for page in pages(self._continue, items, most, page_of):
            yield page
        yield Done()

    async def _continue(self, work: Callable[[], _T], /) -> _T:
        """Make the next part of an answer in a thread."""
        return await self._ask(lambda _holdings: work(), begun=True)

    async def _ask(self, work: Callable[[Holdings], _T], *, begun: bool = False) -> _T:
        """Call `work` in a thread, with what is stored of the sender now (`begun`: as in Catalogues.ask)."""
        return await self._catalogues.ask(self._workers.disk, self._sender, work, begun=begun)


def find_unchecked(standing: Survey, *, stopped: bool) -> Iterator[str]:
    """Yield the problems that keep a sender's streams from being checked. `stopped`: the scrub has stopped."""
    for file, why in standing.named_unreadable:
        yield f"{file}: could not be checked: {why}; it is tried again later"
    if more := standing.unreadable - len(standing.named_unreadable):
        yield f"{plural(more, 'more stream')} could not be checked"
    if stopped:
        yield "the scrub has stopped, because many streams are damaged: `fullsendd check` on the receiver says more"


def scrub_standing(standing: Survey, place: ReadPlace | None, sender: str) -> ScrubStanding:
    """Return what a sender is told of the checks of its streams. `place`: of the check that is running: only the
    sender's own streams are named.
    """
    own = place is not None and place.file.startswith(f"{sender}/")
    return ScrubStanding(
        every=int(standing.every),
        streams=standing.streams,
        current=standing.current,
        checked=standing.checked,
        oldest=None if standing.oldest is None else format_time(standing.oldest),
        due_streams=standing.due_streams,
        due_bytes=standing.due_bytes,
        reading=being_read(place) if place is not None and own else None,
    )


def find_chains(catalogue: Catalogue, now: float) -> Iterator[tuple[StoredStream, tuple[int, int, int, int]]]:
    """Yield the streams that an increment can build on: all restorable ones except packages. With each come the numbers
    of its chain: streams, age in seconds, full_bytes, increment_bytes. `now`: seconds since the epoch.
    """
    chains: dict[str, tuple[int, int, int, int]] = {}  # by file
    for stored, base in catalogue.ways():
        about = stored.summary
        if base is None:
            chain = (1, max(0, int(now - (parse_time(about.received) or now))), about.raw_bytes, 0)
        else:
            streams, age, full_bytes, increment_bytes = chains[base.summary.path]
            chain = (streams + 1, age, full_bytes, increment_bytes + about.raw_bytes)
        chains[about.path] = chain
        if about.kind != "package":
            yield stored, chain


def find_damaged(catalogue: Catalogue) -> Iterator[DamagedEntry]:
    """Yield the streams that are damaged themselves, except packages, which are no base in any case. One that cannot be
    examined is not damaged, and would not be replaced.
    """
    for stored in catalogue.damaged():
        why = None
        with contextlib.suppress(OSError):
            why = catalogue.damage(stored)
        if why is not None and stored.summary.kind != "package":
            yield copied(DamagedEntry, stored.summary, why=why[:REPLACED_MAX])


def _bases_page(part: Sequence[Base | DamagedEntry]) -> Bases:
    return Bases(
        bases=[each for each in part if isinstance(each, Base)],
        damaged=[each for each in part if isinstance(each, DamagedEntry)],
    )


def base_of(stored: StoredStream, streams: int, age: int, full_bytes: int, increment_bytes: int) -> Base:
    """Return the entry of a stream in `bases`, with the numbers of its chain."""
    return copied(
        Base,
        stored.summary,
        streams=streams,
        age=age,
        full_bytes=full_bytes,
        increment_bytes=increment_bytes,
    )


def find_status(catalogue: Catalogue, unchanged_at: dict[tuple[str, str], str]) -> Iterator[DatasetStatus]:
    """Yield the status of each dataset of one sender. `unchanged_at`: as returned by `unchanged.last_seen`."""
    lost = lost_spills(catalogue)
    yield from count_unread(_status(catalogue, lost, unchanged_at), find_unread(catalogue))


def _status(
    catalogue: Catalogue, lost: dict[str, int], unchanged_at: dict[tuple[str, str], str]
) -> Iterator[DatasetStatus]:
    for dataset, group in groupby(catalogue.streams, lambda stored: stored.summary.dataset):
        streams = list(group)
        restorable = [stored.summary for stored in streams if stored.summary.path in lost]
        newest, unchanged = newest_state(restorable, unchanged_at)
        yield _status_of(
            dataset,
            newest,
            unchanged=unchanged,
            streams=len(streams),
            stored_bytes=sum(stored.summary.stored_bytes for stored in streams),
            broken=len(streams) - len(restorable),
            lost_spill_count=lost[newest.path] if newest else 0,
        )


def _status_of(
    dataset: str,
    newest: Summary | None,
    *,
    streams: int,
    broken: int,
    unchanged: str | None = None,
    stored_bytes: int = 0,
    lost_spill_count: int = 0,
) -> DatasetStatus:
    """Return the status of a dataset. `newest`: its newest restorable state, None: it has none."""
    return DatasetStatus(
        dataset=dataset,
        snapshot=newest.snapshot if newest else None,
        guid=newest.guid if newest else None,
        created=newest.created if newest else None,
        received=newest.received if newest else None,
        begun=(newest.begun or newest.received) if newest else None,
        unchanged=unchanged,
        streams=streams,
        stored_bytes=stored_bytes,
        broken=broken,
        lost_spill_count=lost_spill_count,
    )


def count_unread(found: Iterable[DatasetStatus], verdicts: Iterable[Verdict]) -> Iterator[DatasetStatus]:
    """Yield the same, and count as broken what cannot be listed (`find_unread`)."""
    unread = Counter(verdict.dataset for verdict in verdicts)
    for status in found:
        count = unread.pop(status.dataset, 0)
        yield status.model_copy(update={"streams": status.streams + count, "broken": status.broken + count})
    # Of these datasets nothing else is stored.
    for dataset, count in unread.items():
        yield _status_of(dataset, None, streams=count, broken=count)


def find_unread(catalogue: Catalogue, sender: str | None = None, dataset: str | None = None) -> Iterator[Verdict]:
    """Yield a verdict for each object in one sender's folders that cannot be listed: its manifest is missing or
    unreadable, or the folder is unreadable. `sender`, `dataset`: of which, None: of all.

    No snapshot is named, because no program reads names from a file name.
    """
    wanted = None if sender is None or dataset is None else str(dataset_folder(sender, dataset))
    for name, problem in problem_datasets(catalogue.problems, catalogue.streams):
        if wanted is None or problem.hides(wanted):
            yield Verdict(
                file=problem.path,
                dataset=name[: limits.NAME_MAX],
                snapshot="?",
                raw_bytes=0,
                damage=[problem.what[:_LINE]],
            )
