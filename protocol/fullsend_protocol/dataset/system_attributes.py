"""System attributes (SA): how OpenZFS stores the attributes of a file in its bonus buffer and its spill block.

Each dataset has a registry (name of an attribute -> number and length) and layouts (number -> attributes in order),
both ZAPs. A buffer begins with a header that names its layout (include/sys/sa_impl.h, module/zfs/sa.c). docs/stream.md
has the fields.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NoReturn

from fullsend_protocol.shared.errors import DamagedStream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fullsend_protocol.dataset.zap import ZapEntry

_MAGIC: Final = 0x2F505A  # SA_MAGIC
#: sa_hdr_phys_t: magic, layout number (10 bits) and header size in words (6 bits).
_HEADER: Final = struct.Struct("<IH")
_U16: Final = struct.Struct("<H")
_LAYOUT_BITS: Final = 10
#: Stands for the length of a variable attribute that the header does not have: no buffer is so long.
_NO_LENGTH: Final = (1 << 32,)
#: Attributes of a registry, and of a layout: OpenZFS has 22. Attributes in all layouts together.
_ATTRIBUTES_MAX: Final = 1 << 10
_LAYOUTS_MAX: Final = 1 << _LAYOUT_BITS


class AttributeTables:
    """The registry and the layouts of one dataset."""

    def __init__(self, registry: Iterable[ZapEntry], layouts: Iterable[ZapEntry]) -> None:
        """Read both ZAPs. Raises: DamagedStream."""
        self._registry: dict[int, tuple[str, int]] = {}
        for each in registry:
            if len(each.integers) != 1 or len(self._registry) >= _ATTRIBUTES_MAX:
                _fail("the registry of attributes is damaged")
            packed = each.integers[0]  # SA_ATTR_ENCODE: number 0-15, byte order 16-23, length 24-39
            self._registry[packed & 0xFFFF] = each.name.decode(errors="backslashreplace"), packed >> 24 & 0xFFFF
        self._layouts: dict[int, tuple[int, ...]] = {}
        for each in layouts:
            name = each.name.decode(errors="backslashreplace")
            if not name.isascii() or not name.isdecimal() or len(name) > 5 or len(each.integers) > _ATTRIBUTES_MAX:  # noqa: PLR2004 - digits of 16 bits
                _fail("a layout of attributes is damaged")
            self._layouts[int(name)] = each.integers
            if len(self._layouts) > _LAYOUTS_MAX:
                _fail(f"there are more than {_LAYOUTS_MAX} layouts of attributes")

    def decode(self, number: int, data: bytes) -> dict[str, bytes]:
        """Return the attributes in a buffer by name. `number`: of the object, for errors. Raises: DamagedStream."""
        if len(data) < _HEADER.size:
            _fail(f"object {number} has no attributes")
        magic, info = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            _fail(f"object {number} has attributes with a wrong magic")
        layout = self._layouts.get(info & (1 << _LAYOUT_BITS) - 1)
        if layout is None:
            _fail(f"object {number} has attributes in a layout that is not there")
        at = info >> _LAYOUT_BITS << 3
        if at > len(data):
            _fail(f"object {number} has attributes that are not whole")
        lengths = _U16.iter_unpack(data[_HEADER.size : at])  # `at` is a multiple of 8
        found = {}
        for attribute in layout:
            known = self._registry.get(attribute)
            if known is None:
                _fail(f"object {number} has an attribute that is not registered")
            name, length = known
            if not length:  # a variable one
                length = next(lengths, _NO_LENGTH)[0]
            if at + length > len(data):
                _fail(f"object {number} has attributes that are not whole")
            found[name] = data[at : at + length]
            at += length + 7 & ~7
        return found


def _fail(what: str) -> NoReturn:
    msg = f"{what}: the stream is damaged"
    raise DamagedStream(msg)
