"""What can go wrong with a store, whatever holds it."""

from __future__ import annotations

from fullsend_protocol.shared.errors import ErrorCode, FullsendError


class StoreError(FullsendError):
    """The store is missing, not mounted, read-only, full, or unfit."""

    code = ErrorCode.STORE


class StoreFull(StoreError):  # noqa: N818 - reads as an adjective
    """The store has no room even for a file name."""

    code = ErrorCode.SPACE


class PartialDamaged(StoreError):  # noqa: N818 - reads as an adjective
    """A disk has lost or changed durable data of a partial: it is set aside, and its stream starts over."""

    code = ErrorCode.PARTIAL


class ManifestError(StoreError):
    """A manifest cannot be read, or belongs to another place."""

    def __init__(self, path: str, what: str, *, spoilt: bool = False) -> None:
        """`path`: of the manifest, relative to the store; `what`: the rest of the error message; `spoilt`: it was read,
        and no version of fullsendd has written this.
        """
        super().__init__(f"{path}: {what}")
        self.path = path
        self.what = what
        self.spoilt = spoilt
