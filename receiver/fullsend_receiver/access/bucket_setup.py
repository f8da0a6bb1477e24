"""`fullsendd init` for a store in a bucket: makes one, or makes this host one more that serves it.

All hosts that serve a store have one key and certificate, since senders pin that. The key goes from host to host by a
person's hand, and is never in the bucket. The certificate is: a host with another one is refused.
"""

from __future__ import annotations

from typing import Final

from fullsend_protocol.shared.errors import UsageError
from fullsend_receiver.access import identity
from fullsend_receiver.access.config import BucketSettings
from fullsend_receiver.access.opening import home_of, reach
from fullsend_receiver.store.api import Store, update
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
            f" same folder of a host that serves {place} already"
        )
        raise UsageError(msg)
    store = open_bucket_store(bucket, home, store_id)
    check_certificate(store)
    return store, store_id


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
