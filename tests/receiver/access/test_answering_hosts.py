from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from fullsend_receiver.access import identity
from fullsend_receiver.access.answering_hosts import look

if TYPE_CHECKING:
    from fullsend_receiver.store.local import LocalStore


def test_daemon_with_this_certificate_is_told_from_others(store: LocalStore) -> None:
    identity.make_identity(store)
    known = identity.fingerprint(store)
    context = identity.server_context(store, [])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = ("127.0.0.1", listening.getsockname()[1])

        def serve() -> None:
            for _time in range(2):
                connection, _peer = listening.accept()
                with connection, context.wrap_socket(connection, server_side=True):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        (same,) = look([address], known)
        (other,) = look([address], "00" * 32)
        thread.join()
    assert (same.what, other.what) == ("same", "other")
    assert known in other.says


def test_address_without_a_daemon_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    (found,) = look([("127.0.0.1", port)], "")
    assert found.what == "silent"
    assert f"127.0.0.1:{port}" in found.says


def test_address_of_something_else_is_silent() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listening:
        port = listening.getsockname()[1]
        (found,) = look([("::1", port)], "", patience=0.01)
    assert found.what == "silent"
    assert f"[::1]:{port}" in found.says
