"""Opens the store that receiver.toml names. The client of object stores is imported for a bucket alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from fullsend_receiver.access.config import BucketSettings, ReceiverSettings
from fullsend_receiver.store.api import Store
from fullsend_receiver.store.local import open_store as open_folder
from fullsend_receiver.store_s3.place import BucketPlace

if TYPE_CHECKING:
    from fullsend_receiver.store_s3.probe import ProbedBucket

#: The folder in [bucket] `home` that has what STORE/.state has of a store in a folder.
_STATE: Final = ".state"


def open_store(settings: ReceiverSettings) -> Store:
    """Return the store of these settings. Raises: StoreMissing if it is not there, or is another one; StoreError."""
    if isinstance(settings.store, Path):
        return open_folder(settings.store, settings.store_id)
    from fullsend_receiver.store_s3.stores import open_bucket_store

    bucket = reach(settings.store, settings.bucket)
    return open_bucket_store(bucket, home_of(settings.bucket), settings.store_id)


def home_of(settings: BucketSettings) -> Path:
    """Return the `Store.home` of a store in a bucket."""
    return settings.home / _STATE


def reach(place: BucketPlace, settings: BucketSettings) -> ProbedBucket:
    """Return a bucket, without a request to it. Raises: BucketError if the client's library is missing, or the settings
    make no client.
    """
    from fullsend_receiver.store_s3.client import Access, BotoBucket

    return BotoBucket(
        place.bucket,
        place.prefix,
        Access(
            settings.endpoint,
            settings.region,
            authority=None if settings.ca_file is None else str(settings.ca_file),
            credentials_file=None if settings.credentials_file is None else str(settings.credentials_file),
        ),
    )
