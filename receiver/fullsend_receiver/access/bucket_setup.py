"""`fullsendd init` for a store in a bucket: makes one, or makes this host one more that serves it.

All hosts that serve a store have one key and certificate, since senders pin that. The key goes from host to host by a
person's hand, and is never in the bucket. The certificate is: a host with another one is refused. If the key is lost on
all hosts, a new one takes its place, and each sender must join again.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from fullsend_protocol.shared.addresses import join_address
from fullsend_protocol.shared.errors import UsageError, reason
from fullsend_protocol.wire.certificate import fingerprint
from fullsend_receiver.access import identity
from fullsend_receiver.access.answering_hosts import look
from fullsend_receiver.access.config import BucketSettings
from fullsend_receiver.access.opening import home_of, reach
from fullsend_receiver.store.api import Store, update
from fullsend_receiver.store.durable import make_folders
from fullsend_receiver.store.errors import StoreError
from fullsend_receiver.store_s3.place import BucketPlace

#: The document with the certificate of all hosts (PEM).
_CERTIFICATE: Final = "certificate.pem"


def make(place: BucketPlace, settings: BucketSettings, *, adopt: bool) -> tuple[Store, str]:
    """Make a store, and this host's home for it. `adopt`: the store exists, and the home has the key of its hosts.

    Returns: the store, and its id. Raises: UsageError, StoreError; what was made by then is removed.
    """
    from fullsend_receiver.store_s3.stores import make_bucket_store, open_bucket_store, read_id

    bucket, home = reach(place, settings), home_of(settings)
    if not adopt:
        above = (reach(each, settings) for each in place.above())
        made, made_id = make_bucket_store(bucket, home, _furnish, above=above)
        _publish(made)  # of two that began at the same time, this one has won
        return made, made_id
    store_id = read_id(bucket)
    if not home.is_dir():
        msg = (
            f"{home}: no such folder: make it with mode 0700, and copy key.pem and certificate.pem into it from the"
            f" same folder of a host that serves {place} already; if nobody has them any more, use --new-key"
        )
        raise UsageError(msg)
    store = open_bucket_store(bucket, home, store_id)
    check_certificate(store)
    return store, store_id


def adopt_with_new_key(
    place: BucketPlace, settings: BucketSettings, addresses: Iterable[tuple[str, int]]
) -> tuple[Store, str]:
    """Make this host the one that serves an existing store whose key is lost: with a new key, in a new home.
    `addresses`: hosts and ports at which a daemon may still have the old key.

    Returns: the store, and its id. Raises: UsageError if there is a key, StoreError; what was made by then is removed.
    """
    from fullsend_receiver.store_s3.stores import open_bucket_store, read_id

    bucket, home = reach(place, settings), home_of(settings)
    store_id = read_id(bucket)
    with _folder(home):
        store = open_bucket_store(bucket, home, store_id)
        own = (identity.key_file(store), identity.certificate_file(store))
        for file in own:
            if file.exists():
                msg = f"{file}: exists already: leave out --new-key if it is of this store, else choose another --home"
                raise UsageError(msg)
        _check_unserved(store, addresses)
        try:
            _furnish(store)
        except BaseException:
            for file in own:
                file.unlink(missing_ok=True)
            raise
    return store, store_id


@contextlib.contextmanager
def _folder(home: Path) -> Iterator[None]:
    """Make the folder of a key if it is missing. After an error inside, one that was made is removed. Raises:
    StoreError.
    """
    was_there = home.is_dir()
    try:
        make_folders(home.parent)
        home.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        msg = f"{home}: cannot be made: {reason(error)}"
        raise StoreError(msg) from None
    try:
        yield
    except BaseException:
        if not was_there:
            home.rmdir()
        raise


def _check_unserved(store: Store, addresses: Iterable[tuple[str, int]]) -> None:
    """Check that no daemon at these addresses has the present key of a store. Raises: UsageError."""
    found = store.documents.get(_CERTIFICATE)
    if found is None:
        return
    try:
        known = fingerprint(ssl.PEM_cert_to_DER_cert(found.data.decode("ascii")))
    except ValueError:  # nobody could show that one
        return
    for address in addresses:
        if any(each.what == "same" for each in look([address], known)):
            msg = (
                f"{join_address(*address)}: a daemon with the key of {store.where} answers there: copy key.pem and"
                " certificate.pem from its host, and leave out --new-key"
            )
            raise UsageError(msg)


def _furnish(store: Store) -> None:
    identity.make_identity(store)
    _publish(store)


def _publish(store: Store) -> None:
    own = identity.certificate_file(store).read_bytes()
    update(store.documents, _CERTIFICATE, lambda said: None if said == own else own)


def check_certificate(store: Store) -> None:
    """Check that this host has the certificate by which senders know the store. Raises: UsageError if it has another
    one; StoreError.
    """
    identity.server_context(store, [])  # that the key fits the certificate
    found = store.documents.get(_CERTIFICATE)
    if found is not None and found.data.split() != identity.certificate_file(store).read_bytes().split():
        msg = (
            f"{identity.certificate_file(store)}: is not the certificate of {store.where}, which its senders know: copy"
            " key.pem and certificate.pem from a host that serves it"
        )
        raise UsageError(msg)
