"""What the tests of the commands share: one that is run against this receiver."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import forked
from tests.sender.command import Ended, Fullsend
from tests.sender.peer import Receiving

from fullsend_sender.host.identity import Identity
from fullsend_sender.host.options import Endpoint


@pytest.fixture
def config(tmp_path: Path, identity: Identity) -> Callable[[Endpoint], str]:
    def write(endpoint: Endpoint) -> str:
        shutil.copy(identity.key, tmp_path)
        shutil.copy(identity.certificate, tmp_path)
        path = tmp_path / "sender.toml"
        path.write_text(
            f'[receivers.nas]\naddress = "{endpoint.host}:{endpoint.port}"\n'
            f'fingerprint = "{endpoint.fingerprint}"\nsender = "alpha"\n',
            encoding="utf-8",
        )
        return str(path)

    return write


@pytest.fixture
def fullsend(config: Callable[[Endpoint], str]) -> Fullsend:
    """Run `fullsend ARGUMENTS` with a configuration for this receiver."""

    async def run(receiver: Receiving | Endpoint, *arguments: str, stdin: bytes = b"", **env: str) -> Ended:
        endpoint = receiver.endpoint if isinstance(receiver, Receiving) else receiver
        whole = {**os.environ, "FULLSEND_CONFIG": config(endpoint), **env}
        done = await asyncio.to_thread(forked.run, "fullsend_sender", arguments, whole, stdin)
        return Ended(done.returncode, done.stdout, done.stderr.decode())

    return run
