"""What a power cut may leave of a folder, at any moment, as POSIX has it: only what was synced is sure.

    with Disk(store.root, at_each_step) as disk:
        ...the code under test...

`at_each_step(disk)` is called before each call that changes the disk, and by `disk.step()`. There,
`disk.leave(folder, ...)` writes what could be found after the lights come back on. The rules:

- a file's content is sure as of its last fsync or fdatasync; what was written since may be there, in part, or not;
- a name is sure once its folder was synced after it was made, renamed or removed; until then each such change may have
  happened or not, independently of the others, whatever their order;
- a rename is one change: a file may be found under its old name, its new name, or both, but not under neither.
  (Strictly it could; every file system with a journal does it right, and no program could replace a file otherwise.)
"""

from __future__ import annotations

import itertools
import os
import random
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable

_PATCHED: Final = ("open", "write", "fsync", "fdatasync", "ftruncate", "rename", "replace", "link", "unlink", "mkdir")
_REAL: Final = {name: getattr(os, name) for name in _PATCHED}


@dataclass
class _Node:
    """A file or folder. `content`, `names`: what is sure of it; `last`: a file's content when its last name went."""

    folder: bool
    content: bytes = b""
    names: dict[str, int] = field(default_factory=dict)
    last: bytes | None = None


@dataclass(frozen=True)
class _Change:
    """A name that was made (`old` None), removed (`new` None), or renamed, and not synced. A place: (folder, name)."""

    node: int
    old: tuple[int, str] | None
    new: tuple[int, str] | None


class Disk:
    """Watches a folder while code works in it. One thread; nobody else may change anything there."""

    def __init__(self, root: Path, at_each_step: Callable[[Disk], None]) -> None:
        self.steps = 0
        self._root = root
        self._at_each_step = at_each_step
        self._watching = False
        self._ids = itertools.count()
        self._by_inode: dict[int, int] = {}
        self._nodes: dict[int, _Node] = {}
        self._changes: list[_Change] = []
        self._top = self._adopt(root)

    def __enter__(self) -> Self:
        for name in _PATCHED:
            setattr(os, name, getattr(self, f"_{name}"))
        self._watching = True
        return self

    def __exit__(self, *_exc: object) -> None:
        self._watching = False
        for name, call in _REAL.items():
            setattr(os, name, call)

    # --- what may be left

    def leave(self, folder: Path, *, seed: int | None = None) -> None:
        """Write into a new folder what may be left: what is sure, with `seed` also some of what is not."""
        watching, self._watching = self._watching, False
        chance = None if seed is None else random.Random(seed)
        names = {key: dict(node.names) for key, node in self._nodes.items() if node.folder}
        if chance is not None:
            for change in self._changes:
                if chance.random() < 0.5:
                    if change.new is not None:
                        names[change.new[0]][change.new[1]] = change.node
                    if change.old is not None and (change.new is None or chance.random() < 0.5):
                        here, name = change.old
                        if names[here].get(name) == change.node:
                            del names[here][name]
        made: dict[int, Path] = {}
        paths = self._paths()
        folder.mkdir()
        todo = [(self._top, folder)]
        while todo:
            key, path = todo.pop()
            for name, child in names[key].items():
                where = path / name
                node = self._nodes[child]
                if node.folder:
                    where.mkdir()
                    todo.append((child, where))
                elif child in made:
                    where.hardlink_to(made[child])
                else:
                    where.write_bytes(self._content(child, paths, chance))
                    made[child] = where
        self._watching = watching

    def _content(self, key: int, paths: dict[int, Path], chance: random.Random | None) -> bytes:
        node = self._nodes[key]
        if chance is None:
            return node.content
        now = paths[key].read_bytes() if key in paths else node.last or b""
        match chance.randrange(4):
            case 0:
                return node.content
            case 1:
                return now
            case 2:  # some of what was written came through
                return now[: chance.randint(min(len(node.content), len(now)), len(now))]
            case _:  # its length came through, its last bytes did not
                sure = min(len(node.content), len(now))
                return now[:sure] + bytes(len(now) - sure)

    # --- the model

    def _adopt(self, path: Path) -> int:
        """Take what is there before we watch for sure."""
        node = self._make(os.lstat(path))
        if self._nodes[node].folder:
            self._nodes[node].names = {child.name: self._adopt(child) for child in path.iterdir()}
        else:
            self._nodes[node].content = path.read_bytes()
        return node

    def _make(self, status: os.stat_result) -> int:
        key = next(self._ids)
        self._nodes[key] = _Node(stat.S_ISDIR(status.st_mode))
        self._by_inode[status.st_ino] = key
        return key

    def _place(self, path: str | os.PathLike[str]) -> tuple[int, str] | None:
        """The folder and name that a path is; None where it is not below the root."""
        where = Path(path)
        if self._root not in where.parents:
            return None
        return self._by_inode[os.stat(where.parent).st_ino], where.name

    def _paths(self) -> dict[int, Path]:
        return {self._by_inode[os.lstat(path).st_ino]: path for path in self._root.rglob("*")}

    def step(self) -> None:
        """Something is about to happen."""
        if self._watching:
            self._watching = False
            self.steps += 1
            self._at_each_step(self)
            self._watching = True

    # --- the calls

    def _open(self, path: Any, flags: int, *rest: Any, **named: Any) -> int:
        place = self._place(path) if self._watching and flags & os.O_CREAT else None
        new = place is not None and not os.path.lexists(path)
        if new:
            self.step()
        descriptor: int = _REAL["open"](path, flags, *rest, **named)
        if new:
            self._changes.append(_Change(self._make(os.fstat(descriptor)), None, place))
        return descriptor

    def _write(self, descriptor: int, data: Any) -> Any:
        self.step()
        return _REAL["write"](descriptor, data)

    def _ftruncate(self, descriptor: int, length: int) -> None:
        self.step()
        _REAL["ftruncate"](descriptor, length)

    def _fsync(self, descriptor: int) -> None:
        self.step()
        _REAL["fsync"](descriptor)
        if not self._watching:
            return
        key = self._by_inode.get(os.fstat(descriptor).st_ino)
        if key is None:
            return
        node = self._nodes[key]
        if not node.folder:
            node.content = Path(f"/proc/self/fd/{descriptor}").read_bytes()
            return
        waiting: list[_Change] = []
        for change in self._changes:
            old, new = change.old, change.new
            if new is not None and (new[0] == key or (old is not None and old[0] == key)):
                self._nodes[new[0]].names[new[1]] = change.node
                new = None
            if old is not None and old[0] == key:
                if node.names.get(old[1]) == change.node:
                    del node.names[old[1]]
                old = None
            if old is not None or new is not None:
                waiting.append(_Change(change.node, old, new))
        self._changes = waiting

    _fdatasync = _fsync

    def _rename(self, source: Any, destination: Any) -> None:
        old, new = (self._place(path) if self._watching else None for path in (source, destination))
        if old is None or new is None:
            _REAL["rename"](source, destination)
            return
        self.step()
        node = self._by_inode[os.lstat(source).st_ino]
        self._forget(destination)
        _REAL["rename"](source, destination)
        self._changes.append(_Change(node, old, new))

    _replace = _rename

    def _link(self, *arguments: Any, **named: Any) -> None:
        if self._watching:
            raise NotImplementedError("a hard link, of which this model knows nothing")
        _REAL["link"](*arguments, **named)

    def _unlink(self, path: Any, **named: Any) -> None:
        place = self._place(path) if self._watching else None
        if place is None or not os.path.lexists(path):
            _REAL["unlink"](path, **named)
            return
        self.step()
        node = self._by_inode[os.lstat(path).st_ino]
        self._forget(path)
        _REAL["unlink"](path, **named)
        self._changes.append(_Change(node, place, None))

    def _forget(self, path: Any) -> None:
        """Keep what a file holds whose name goes: it may come back."""
        if os.path.lexists(path):
            self._nodes[self._by_inode[os.lstat(path).st_ino]].last = Path(path).read_bytes()

    def _mkdir(self, path: Any, *rest: Any, **named: Any) -> None:
        place = self._place(path) if self._watching else None
        if place is None:
            _REAL["mkdir"](path, *rest, **named)
            return
        self.step()
        _REAL["mkdir"](path, *rest, **named)
        self._changes.append(_Change(self._make(os.lstat(path)), None, place))
