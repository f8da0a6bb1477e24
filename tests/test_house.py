"""The rules for the source, checked in the source: imports, what `protocol` may use, names, and where tests are."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
#: Where the package of each wing lies.
WINGS = {
    "protocol": ROOT / "protocol" / "fullsend_protocol",
    "transport": ROOT / "protocol" / "fullsend_transport",
    "cli": ROOT / "protocol" / "fullsend_cli",
    "hooks": ROOT / "protocol" / "fullsend_hooks",
    "files": ROOT / "protocol" / "fullsend_files",
    "report": ROOT / "protocol" / "fullsend_report",
    "receiver": ROOT / "receiver" / "fullsend_receiver",
    "sender": ROOT / "sender" / "fullsend_sender",
}

#: The rooms of a wing, the lowest first. A room imports only rooms that stand before it.
ROOMS = {
    "protocol": ("shared", "stream", "dataset", "format", "wire"),
    "receiver": (
        "events",
        "store",
        "store_s3",
        "catalogue",
        "access",
        "arrival",
        "maintenance",
        "files",
        "monitor",
        "daemon",
        "cli",
    ),
    "sender": ("zfs", "host", "transfer", "push", "restore", "drill", "monitor", "cli"),
}

FORBIDDEN_WINGS = {
    "protocol": {
        "fullsend_cli",
        "fullsend_files",
        "fullsend_hooks",
        "fullsend_report",
        "fullsend_transport",
        "fullsend_receiver",
        "fullsend_sender",
    },
    "transport": {
        "fullsend_files",
        "fullsend_cli",
        "fullsend_hooks",
        "fullsend_report",
        "fullsend_receiver",
        "fullsend_sender",
    },
    "cli": {
        "fullsend_files",
        "fullsend_hooks",
        "fullsend_report",
        "fullsend_transport",
        "fullsend_receiver",
        "fullsend_sender",
    },
    "hooks": {
        "fullsend_files",
        "fullsend_cli",
        "fullsend_report",
        "fullsend_transport",
        "fullsend_receiver",
        "fullsend_sender",
    },
    "report": {
        "fullsend_files",
        "fullsend_cli",
        "fullsend_hooks",
        "fullsend_transport",
        "fullsend_receiver",
        "fullsend_sender",
    },
    "files": {
        "fullsend_cli",
        "fullsend_hooks",
        "fullsend_report",
        "fullsend_transport",
        "fullsend_receiver",
        "fullsend_sender",
    },
    "receiver": {"fullsend_sender"},
    "sender": {"fullsend_receiver"},
}

#: Which modules outside the store's room go to files of this host, and why. All others have a Store.
STORE_FILES = {
    "access/identity.py": "the key must not leave this host, and TLS wants files; `home` says whose the store is",
    "access/setup.py": "makes the folder, and gives it to its user",
    "catalogue/scrub_results.py": "a log that is appended to; a document is replaced as a whole",
    "catalogue/search.py": "streams in folders are found in another way than objects",
    "catalogue/summaries.py": "what the folders' inodes and times say saves reading 100,000 manifests",
    "daemon/local_socket.py": "a socket is a file, and who may enter its folder decides who may ask",
    "files/kept_indexes.py": "an index is a database, and SQLite wants a file",
    "maintenance/copy_claim.py": "a lock in `home` tells whether the owner of a claim of this host lives",
    "daemon/server.py": "one daemon at a time has the folder: flock",
}

#: The attributes of a store that lead to files: any store has the last three.
STORE_PATHS = {*("root", "marker", "state", "partial", "trash_folder", "reading"), "home", "lock", "folder"}

#: The modules of a LocalStore. Whatever else the store's room has, any store has.
LOCAL_MODULES = {*("commits", "documents", "holds", "layout", "objects", "partials", "recovery", "removals", "uploads")}

#: What reaches a socket, a file, a process or an event loop. `secrets` stands in for os.urandom.
OUTSIDE_WORLD = {
    *("asyncio", "concurrent", "multiprocessing", "pty", "runpy", "signal", "subprocess", "uvloop"),
    *("_socket", "_ssl", "ftplib", "http", "select", "selectors", "smtplib", "socket", "socketserver", "ssl"),
    *("fcntl", "fileinput", "glob", "mmap", "os", "pathlib", "posix", "shelve", "shutil", "sqlite3", "tempfile"),
    "importlib",  # would hide an import from this test
    "ctypes",  # reaches all of these
}

#: What a module of a wing must not import. A command line has its descriptors, and no time for what is slow to import.
#: A signal must not leave a terminal as a picture has made it.
FORBIDDEN_MODULES = {
    "protocol": OUTSIDE_WORLD,
    "cli": (OUTSIDE_WORLD - {"os", "ctypes", "signal"}) | {"pydantic", "zstandard"},
    "report": OUTSIDE_WORLD,
}

#: `io` is allowed for its buffers in memory; these of its names open files.
IO_FILES = {"FileIO", "open", "open_code"}

#: Builtins that open a file, or that hide an import from this test.
OUTSIDE_CALLS = {"__import__", "open"}

#: The design is not in this repository. A comment states the fact, or names a document in docs/.
DESIGN_SECTION = re.compile(r"\bdesign,? +section\b", re.IGNORECASE)


def modules(wing: str) -> list[Path]:
    return sorted(path for path in WINGS[wing].rglob("*.py") if "__pycache__" not in path.parts)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and full name of all that is imported: at the top, in functions, and for mypy alone."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield node.lineno, alias.name
            case ast.ImportFrom(level=0, module=str(module)):
                for alias in node.names:
                    yield node.lineno, f"{module}.{alias.name}"
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name
            case _:
                pass


def outside_calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield line and name of every mention of a builtin or an attribute of `io` that opens a file."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) if name in OUTSIDE_CALLS:
                yield node.lineno, name
            case ast.Attribute(value=ast.Name(id="io"), attr=name) if name in IO_FILES:
                yield node.lineno, f"io.{name}"
            case _:
                pass


def violations(wing: str, source: str) -> list[str]:
    """Return what in this source a module of this wing must not do, as `line: what`."""
    tree = ast.parse(source)
    found = []
    for line, name in imports(tree):
        top, _, rest = name.partition(".")
        if (
            top in FORBIDDEN_WINGS[wing]
            or top in FORBIDDEN_MODULES.get(wing, ())
            or (wing == "protocol" and top in {"io", "_io"} and rest in IO_FILES | {"*"})
        ):
            found.append(f"{line}: imports {name}")
    if wing == "protocol":
        found += [f"{line}: uses {name}" for line, name in outside_calls(tree)]
    return found


def room_violations(wing: str, room: str, source: str) -> list[str]:
    """Return what in this source a module of this room must not import, as `line: what`."""
    rooms = ROOMS[wing]
    above = rooms[rooms.index(room) + 1 :]
    package = WINGS[wing].name
    return [
        f"{line}: {room} imports {name}"
        for line, name in imports(ast.parse(source))
        if name.startswith(f"{package}.") and name.split(".")[1] in above
    ]


def store_files(source: str) -> list[str]:
    """Return where in this source the files of a store are gone to, as `line: what`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(
                value=ast.Name(id="store" | "_store") | ast.Attribute(attr="store" | "_store"), attr=attr
            ) if attr in STORE_PATHS:
                found.append(f"{node.lineno}: uses {attr}")
            case _:
                pass
    return found


def class_names(tree: ast.AST) -> Iterator[str]:
    """Yield the name of every class, wherever it is defined."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name


def defined_twice(sources: dict[str, str]) -> dict[str, list[str]]:
    """Return the class names that stand more than once in these sources (by path), each with its paths."""
    found: dict[str, list[str]] = {}
    for path, source in sources.items():
        for name in class_names(ast.parse(source)):
            found.setdefault(name, []).append(path)
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def design_mentions(source: str) -> list[int]:
    """Return the lines of this source that mention a section of the design, which is not in this repository."""
    lines = source.splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        # A mention may be wrapped: look across the end of the line, and past the mark of a comment.
        wrapped = f"{line} {lines[number].lstrip(' #:')}" if number < len(lines) else line
        if any(match.start() < len(line) for match in DESIGN_SECTION.finditer(wrapped)):
            found.append(number)
    return found


def parsed(wing: str) -> dict[str, ast.Module]:
    """Return the modules of a wing by their full names; packages' own docstrings are none."""
    root = WINGS[wing].parent
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in modules(wing)
        if path.name != "__init__.py"
    }


def imported(tree: ast.AST, names: set[str]) -> set[str]:
    """Return which of the modules of these names a module imports, or something of them."""
    found = {name for _line, name in imports(tree)}
    return (found | {name.rpartition(".")[0] for name in found}) & names


def mirrored(wing: str) -> set[str]:
    """Return where the tests of a wing's modules belong, relative to tests/."""
    exempt = {"__init__.py", "__main__.py"}
    relative = (path.relative_to(WINGS[wing]) for path in modules(wing) if path.name not in exempt)
    return {str(Path(wing) / path.with_name(f"test_{path.name}")) for path in relative}


@pytest.mark.parametrize("wing", WINGS)
def test_wing_exists_and_is_typed(wing: str) -> None:
    assert (WINGS[wing] / "__init__.py").is_file()
    assert (WINGS[wing] / "py.typed").is_file()


@pytest.mark.parametrize("wing", WINGS)
def test_nobody_leaves_his_wing(wing: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{violation}"
        for path in modules(wing)
        for violation in violations(wing, path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("wing", ROOMS)
def test_every_module_has_a_room_and_imports_only_rooms_below(wing: str) -> None:
    found = []
    for path in modules(wing):
        relative = path.relative_to(WINGS[wing])
        if len(relative.parts) == 1:
            if path.name not in {"__init__.py", "__main__.py"}:
                found.append(f"{relative}: has no room")
        elif (room := relative.parts[0]) not in ROOMS[wing]:
            found.append(f"{relative}: {room} is not a room that ROOMS knows")
        else:
            source = path.read_text(encoding="utf-8")
            found += [f"{relative}:{each}" for each in room_violations(wing, room, source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("wing", "room", "source"),
    [
        ("protocol", "shared", "from fullsend_protocol.stream.records import Walker"),
        ("protocol", "format", "import fullsend_protocol.wire.frames"),
        ("receiver", "store", "def f():\n    from fullsend_receiver.catalogue import streams"),
        ("receiver", "arrival", "from fullsend_receiver.daemon.session import Session"),
        ("sender", "host", "if TYPE_CHECKING:\n    from fullsend_sender.push.plan import Send"),
        ("sender", "push", "from fullsend_sender import restore"),
    ],
)
def test_an_import_of_a_room_above_is_seen(wing: str, room: str, source: str) -> None:
    assert room_violations(wing, room, source)


def test_files_of_a_store_are_gone_to_where_that_has_a_reason() -> None:
    found = {}
    for path in modules("receiver"):
        relative = path.relative_to(WINGS["receiver"])
        if relative.parts[0] != "store" and (uses := store_files(path.read_text(encoding="utf-8"))):
            found[str(relative)] = uses
    assert found.keys() == STORE_FILES.keys(), {name: uses for name, uses in found.items() if name not in STORE_FILES}


def test_nobody_imports_what_only_a_store_in_a_folder_has() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in modules("receiver")
        if path.relative_to(WINGS["receiver"]).parts[0] != "store"
        for line, name in imports(ast.parse(path.read_text(encoding="utf-8")))
        if name.startswith("fullsend_receiver.store.") and name.split(".")[2] in LOCAL_MODULES
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source", ["store.root / file", "self._store.state", "catalogues.store.lock", "_store.partial"]
)
def test_a_way_to_the_files_of_a_store_is_seen(source: str) -> None:
    assert store_files(source)


@pytest.mark.parametrize("source", ["store.open(file)", "self._store.documents", "tree.root", "settings.store"])
def test_what_any_store_has_is_no_way_to_its_files(source: str) -> None:
    assert not store_files(source)


def test_no_class_name_exists_twice() -> None:
    sources = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for wing in WINGS for path in modules(wing)
    }
    assert not defined_twice(sources)


@pytest.mark.parametrize(
    "sources",
    [
        {"a.py": "class Chunk: ...", "b.py": "class Chunk(NamedTuple):\n    size: int"},
        {"a.py": "class Chunk: ...\ndef f():\n    class Chunk: ..."},
    ],
)
def test_a_class_name_that_exists_twice_is_seen(sources: dict[str, str]) -> None:
    assert set(defined_twice(sources)) == {"Chunk"}


def test_different_class_names_are_allowed() -> None:
    assert not defined_twice({"a.py": "class Chunk: ...\nchunk = Chunk()", "b.py": "from a import Chunk"})


def test_no_module_mentions_the_design() -> None:
    me = Path(__file__).resolve()
    paths = [path for wing in WINGS for path in modules(wing)]
    for folder in ("tests", "bench", "docs"):
        paths += sorted((ROOT / folder).rglob("*.py"))
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in paths
        if path != me
        for line in design_mentions(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""The first frame (design section 6)."""', [1]),
        ("x = 1\n# see Design, section 8", [2]),
        ("# it holds what the design\n# section 5 promises", [1]),
        ('"""See docs/format.md, section 6. This design has no section."""', []),
    ],
)
def test_a_mention_of_the_design_is_seen(source: str, lines: list[int]) -> None:
    assert design_mentions(source) == lines


@pytest.mark.parametrize("wing", WINGS)
def test_no_modules_import_each_other_in_a_circle(wing: str) -> None:
    """An import for mypy alone counts: who reads one module must read the other."""
    trees = parsed(wing)
    graph = {name: imported(tree, set(trees)) for name, tree in trees.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_a_circle_of_modules_is_seen() -> None:
    trees = {
        "fullsend_x.a": ast.parse("from fullsend_x.b import f"),
        "fullsend_x.b": ast.parse("if TYPE_CHECKING:\n    from fullsend_x import a"),
    }
    graph = {name: imported(tree, set(trees)) for name, tree in trees.items()}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("wing", WINGS)
def test_every_module_has_its_test_and_every_test_its_module(wing: str) -> None:
    tests = {str(path.relative_to(ROOT / "tests")) for path in (ROOT / "tests" / wing).rglob("test_*.py")}
    belong = mirrored(wing)
    problems = [f"tests/{path} is missing" for path in sorted(belong - tests)]
    problems += [f"tests/{path} tests no module" for path in sorted(tests - belong)]
    assert not problems, "\n".join(problems)


def test_tests_are_no_packages() -> None:
    """A single __init__.py would shadow the others under importlib mode."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize(
    ("wing", "source"),
    [
        ("sender", "import fullsend_receiver"),
        ("sender", "from fullsend_receiver.store.local import Store"),
        ("sender", "def f():\n    import fullsend_receiver.store.local as s"),
        ("sender", "if TYPE_CHECKING:\n    from fullsend_receiver import store"),
        ("sender", "importlib.import_module('fullsend_receiver.store.local')"),
        ("receiver", "from fullsend_sender import plan"),
        ("receiver", "__import__('fullsend_sender')"),
        ("protocol", "from fullsend_sender import plan"),
        ("protocol", "import fullsend_receiver.store.local"),
        ("protocol", "from fullsend_transport.channel import Channel"),
        ("transport", "from fullsend_sender.transfer.link import Link"),
        ("protocol", "from fullsend_cli.output import write_line"),
        ("transport", "import fullsend_receiver.daemon.session"),
        ("transport", "from fullsend_cli.output import write_line"),
        ("cli", "from fullsend_transport.channel import Channel"),
        ("cli", "def f():\n    from fullsend_sender.host.log import log"),
        ("cli", "import fullsend_receiver.daemon.log"),
        ("cli", "import asyncio"),
        ("report", "from fullsend_receiver.monitor.overview import Overview"),
        ("report", "from pathlib import Path"),
        ("cli", "from pydantic import BaseModel"),
        ("protocol", "import zlib, asyncio.streams"),
        ("protocol", "from socket import socket"),
        ("protocol", "import ssl as tls"),
        ("protocol", "import subprocess"),
        ("protocol", "import ctypes"),
        ("protocol", "import os.path"),
        ("protocol", "from pathlib import Path"),
        ("protocol", "from io import open as o"),
        ("protocol", "import io\nio.FileIO(3)"),
        ("protocol", "with open('x') as f: pass"),
        ("protocol", "reader = open"),
        ("protocol", "def f():\n    return __import__(name)"),
    ],
)
def test_violation_is_seen(wing: str, source: str) -> None:
    assert violations(wing, source)


@pytest.mark.parametrize(
    ("wing", "source"),
    [
        ("sender", "import asyncio, os\nfrom fullsend_protocol.wire.frames import FrameHeader\nopen('x')"),
        ("receiver", "from fullsend_protocol import limits\nfrom . import store\nfrom .store import Store"),
        ("sender", "from fullsend_transport.channel import Channel"),
        ("transport", "import asyncio, socket, ssl\nfrom fullsend_protocol.wire.connection import Connection"),
        ("sender", "from fullsend_cli.output import write_line"),
        ("receiver", "from fullsend_cli.running import run"),
        ("cli", "import argparse, os, sys\nfrom fullsend_protocol.shared.errors import FullsendError\nopen('x')"),
        ("protocol", "import io, struct, zlib\nbuffer = io.BytesIO()\nimport zstandard"),
        ("protocol", "from fullsend_protocol.shared.errors import RemoteProtocolError\nstream.open()"),
        ("protocol", "# open() is not called\nfullsend_sender_name = 'fullsend_sender'"),
    ],
)
def test_what_is_allowed_is_let_through(wing: str, source: str) -> None:
    assert not violations(wing, source)
