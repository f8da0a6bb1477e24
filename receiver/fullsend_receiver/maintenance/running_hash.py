"""SHA-256 whose state can be saved, so that a check of a large file can resume in another process.

`hashlib` cannot save a state. It uses libcrypto, whose older interface computes the same in a struct of plain numbers;
that is called here. It is tried before it is used. Where it is missing, or behaves in another way, `hashlib` is used,
and no state can be saved.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import hashlib
import struct
from typing import Any, Final, Protocol

_BLOCK: Final = 64
_WORDS: Final = struct.Struct(">8IQ")  # the eight words of the state, and the number of hashed bytes
_LIBRARY: Final = "libcrypto.so.3"
_BITS_OF_LENGTH: Final = 32


class RunningSha256(Protocol):
    """A SHA-256 over bytes that come in pieces."""

    def update(self, data: bytes) -> None:
        """Add bytes. Releases the GIL meanwhile."""

    def digest(self) -> bytes:
        """Return the SHA-256 of all bytes so far, 32 bytes."""

    def copy(self) -> RunningSha256:
        """Return an independent copy."""


class SavableSha256:
    """A `RunningSha256` in libcrypto, with its state."""

    def __init__(self, library: Any, context: _Context | None = None) -> None:  # noqa: ANN401 - ctypes has no type
        """`library`: libcrypto; `context`: an earlier state, None: no bytes yet."""
        self._library = library
        self._context = _Context() if context is None else context
        if context is None:
            library.SHA256_Init(ctypes.byref(self._context))

    def update(self, data: bytes) -> None:
        """Add bytes."""
        self._library.SHA256_Update(ctypes.byref(self._context), data, len(data))

    def digest(self) -> bytes:
        """Return the SHA-256 of all bytes so far."""
        result = ctypes.create_string_buffer(hashlib.sha256().digest_size)
        self._library.SHA256_Final(result, ctypes.byref(_Context.from_buffer_copy(self._context)))
        return result.raw

    def copy(self) -> SavableSha256:
        """Return an independent copy."""
        return SavableSha256(self._library, _Context.from_buffer_copy(self._context))

    @property
    def state(self) -> bytes:
        """The state, in a form that does not depend on the machine."""
        context = self._context
        count = (context.high << _BITS_OF_LENGTH | context.low) // 8
        return _WORDS.pack(*context.words, count) + bytes(context.block)[: context.filled]


class _Context(ctypes.Structure):
    """SHA256_CTX (openssl/sha.h)."""

    _fields_ = (
        ("words", ctypes.c_uint32 * 8),
        ("low", ctypes.c_uint32),
        ("high", ctypes.c_uint32),
        ("block", ctypes.c_uint8 * _BLOCK),
        ("filled", ctypes.c_uint),
        ("length", ctypes.c_uint),
    )
    words: ctypes.Array[ctypes.c_uint32]
    low: int
    high: int
    block: ctypes.Array[ctypes.c_uint8]
    filled: int
    length: int


def sha256() -> RunningSha256:
    """Return a new hash, one whose state can be saved if possible."""
    library = _library()
    return hashlib.sha256() if library is None else SavableSha256(library)


def saved(running: RunningSha256) -> bytes | None:
    """Return the state of a hash; None if it cannot be saved."""
    return running.state if isinstance(running, SavableSha256) else None


def restored(state: bytes) -> RunningSha256:
    """Return the hash with this state. Raises: ValueError if there is none, or if it cannot be restored here."""
    library = _library()
    if library is None or len(state) < _WORDS.size:
        msg = "the state of a SHA-256 cannot be restored"
        raise ValueError(msg)
    return _restored(library, state)


def _restored(library: Any, state: bytes) -> SavableSha256:  # noqa: ANN401 - as above
    *words, count = _WORDS.unpack_from(state)
    block = state[_WORDS.size :]
    if len(block) != count % _BLOCK:
        msg = f"a SHA-256 over {count} bytes with {len(block)} bytes in its block"
        raise ValueError(msg)
    running = SavableSha256(library)
    context = running._context  # noqa: SLF001 - our own class
    context.words[:] = words
    bits = count * 8
    context.low, context.high = bits & 0xFFFFFFFF, bits >> _BITS_OF_LENGTH
    context.block[: len(block)] = list(block)
    context.filled = len(block)
    return running


@functools.cache
def _library() -> Any:  # noqa: ANN401 - as above
    """Return libcrypto; None if it is missing, or does not compute what `hashlib` does."""
    for name in (_LIBRARY, ctypes.util.find_library("crypto")):
        try:
            library = ctypes.CDLL(name) if name else None
            if library is not None and _fits(library):
                return library
        except (OSError, AttributeError, ValueError):
            continue
    return None


def _fits(library: Any) -> bool:  # noqa: ANN401 - as above
    for function in (library.SHA256_Init, library.SHA256_Update, library.SHA256_Final):
        function.restype = ctypes.c_int
    library.SHA256_Init.argtypes = [ctypes.c_void_p]
    library.SHA256_Update.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.SHA256_Final.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    one, other = bytes(range(200)), bytes(range(77))
    running = SavableSha256(library)
    running.update(one)
    again = _restored(library, running.state)
    again.update(other)
    return again.digest() == hashlib.sha256(one + other).digest()
