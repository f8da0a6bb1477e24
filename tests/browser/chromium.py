"""Debian's Chromium without a window, driven by the DevTools protocol over a pipe: no further package is needed."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import selectors
import shutil
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

#: Seconds for one answer. A hang is a failure with a message.
_PATIENCE: Final = 90
_PIECE: Final = 1 << 20
#: axe-core, where .ci/setup-browser puts it.
AXE: Final = Path(__file__).parent.parent.parent / "build" / "axe.min.js"
#: Debian's script starts the program; bash, since the numbers of pipes may have two digits.
_START: Final = 'read=$1 write=$2; shift 2; exec "$@" 3<&"$read" 4>&"$write"'


def cannot(why: str) -> NoReturn:
    """Skip the test: this machine has no browser. In `make test-browser` it fails instead."""
    if os.environ.get("FULLSEND_TEST_BROWSER") == "required":
        pytest.fail(why)
    pytest.skip(why)


class Tab:
    """One page. `complaints`: what the browser has written to its console: errors, warnings, refusals."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session
        self.complaints: list[str] = []

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its result. Raises: AssertionError if the browser refuses it."""
        return self._browser.ask(method, session=self._session, **parameters)

    def show(self, path: Path, width: int, *, scheme: str = "light", height: int = 900) -> None:
        """Open a file in a window of this width in CSS pixels, and wait until it is loaded."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._browser.forget(self._session)
        self.ask("Page.navigate", url=path.as_uri())
        self._browser.wait(self._session, "Page.loadEventFired")

    def run(self, script: str) -> Any:
        """Return what an expression gives, which may be a promise."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press a key and let it go. `code`: its virtual code in Windows, which the protocol wants."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def screenshot(self) -> bytes:
        """Return all of the page as PNG."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def axe(self) -> list[str]:
        """Return what axe-core finds, a line for each fault."""
        self.run(AXE.read_text(encoding="utf-8") + ";0")
        found = self.run("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{each['id']}: {each['help']}: {node['html'][:200]} {node.get('failureSummary', '')}"
            for each in found["violations"]
            for node in each["nodes"]
        ]


class Browser:
    """A browser that runs."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, from_: int) -> None:
        self._process = process
        self._to = to
        self._from = from_
        self._buffer = bytearray()
        self._number = 0
        self._events: deque[dict[str, Any]] = deque()
        self._tabs: dict[str, Tab] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(from_, selectors.EVENT_READ)

    def open_tab(self) -> Tab:
        """Open an empty page."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._tabs[session] = tab = Tab(self, session)
        for domain in ("Page", "Runtime", "Log"):
            tab.ask(f"{domain}.enable")
        return tab

    def ask(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        said: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            said["sessionId"] = session
        data = memoryview(json.dumps(said).encode() + b"\0")
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            heard = self._hear()
            if heard.get("id") == self._number:
                assert "error" not in heard, heard
                result: dict[str, Any] = heard["result"]
                return result
            self._note(heard)

    def forget(self, session: str) -> None:
        """Forget the events that nobody has waited for."""
        self._events.clear()

    def wait(self, session: str, event: str) -> None:
        """Wait until an event has come."""
        while True:
            while self._events:
                each = self._events.popleft()
                if each.get("sessionId") == session and each["method"] == event:
                    return
            self._note(self._hear())

    def end(self) -> None:
        """End it, and wait until it has ended."""
        with contextlib.suppress(OSError, AssertionError):
            self.ask("Browser.close")
        os.close(self._to)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._selector.close()
        os.close(self._from)

    def _note(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        tab = self._tabs.get(event.get("sessionId", ""))
        if tab is None:
            return
        about = event.get("params", {})
        match event.get("method"):
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                tab.complaints.append(json.dumps(about)[:500])
            case "Log.entryAdded":
                tab.complaints.append(about["entry"]["text"])
            case _:
                pass

    def _hear(self) -> dict[str, Any]:
        while (end := self._buffer.find(b"\0")) < 0:
            assert self._selector.select(_PATIENCE), f"the browser has said nothing for {_PATIENCE} s"
            piece = os.read(self._from, _PIECE)
            assert piece, "the browser has ended"
            self._buffer += piece
        said: dict[str, Any] = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        return said


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile in this folder, and end it. Skips the test if there is none."""
    program = shutil.which("chromium")
    if program is None or not AXE.is_file():
        cannot("chromium or axe-core is missing: run .ci/setup-browser as root, or make test-browser")
    read, to = os.pipe()
    from_, write = os.pipe()
    options = [
        *("--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder}", "--no-first-run"),
        *("--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-background-networking"),
        *(["--no-sandbox"] if os.geteuid() == 0 else []),  # Chromium refuses to run as root with it
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", _START, "bash", str(read), str(write), program, *options],
            pass_fds=(read, write),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    os.close(read)
    os.close(write)
    running = Browser(process, to, from_)
    try:
        yield running
    finally:
        running.end()
