"""What the tests of the commands share: one that is run against this receiver."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
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
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fullsend_sender", *arguments),
            env={**os.environ, "FULLSEND_CONFIG": config(endpoint), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Ended(process.returncode, out, err.decode())

    return run
