from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.receiver.buckets import MemoryBucket

from fullsend_receiver.access import opening
from fullsend_receiver.access.config import BucketSettings, ReceiverSettings
from fullsend_receiver.store.errors import StoreMissing
from fullsend_receiver.store.local import make_store
from fullsend_receiver.store_s3.client import BotoBucket
from fullsend_receiver.store_s3.place import BucketPlace
from fullsend_receiver.store_s3.stores import BucketStore, make_bucket_store

if TYPE_CHECKING:
    from pathlib import Path

PLACE = BucketPlace("backups", "zfs")


def test_folder_is_opened(tmp_path: Path) -> None:
    made, store_id = make_store(tmp_path / "store", lambda _store: None)
    assert opening.open_store(ReceiverSettings(store=made.root, store_id=store_id)) == made
    with pytest.raises(StoreMissing):
        opening.open_store(ReceiverSettings(store=made.root, store_id="another"))


def test_bucket_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, settings = MemoryBucket(), BucketSettings(home=tmp_path / "home")
    _made, store_id = make_bucket_store(bucket, opening.home_of(settings), lambda _store: None)
    monkeypatch.setattr(opening, "reach", lambda _place, _settings: bucket)
    opened = opening.open_store(ReceiverSettings(store=PLACE, store_id=store_id, bucket=settings))
    assert isinstance(opened, BucketStore)
    assert opened.home == tmp_path / "home" / ".state"
    with pytest.raises(StoreMissing, match="is another store"):
        opening.open_store(ReceiverSettings(store=PLACE, store_id="another", bucket=settings))
    with pytest.raises(StoreMissing, match="it has the key of this host"):
        opening.open_store(
            ReceiverSettings(store=PLACE, store_id=store_id, bucket=BucketSettings(home=tmp_path / "other"))
        )


def test_client_has_what_the_settings_say(tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[default]\naws_access_key_id = one\naws_secret_access_key = two\n", encoding="ascii")
    settings = BucketSettings(endpoint="http://127.0.0.1:1", region="here", credentials_file=credentials)
    bucket = opening.reach(PLACE, settings)
    assert isinstance(bucket, BotoBucket)
    assert bucket.where == "s3://backups/zfs"
    client = bucket._client
    assert (client.meta.endpoint_url, client.meta.region_name) == ("http://127.0.0.1:1", "here")
    assert client._request_signer._credentials.access_key == "one"
