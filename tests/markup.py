"""A strict reader of HTML, for tests: each element is closed, in order, and each attribute stands once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

from typing_extensions import override

#: Elements that have no end in HTML.
_VOID: Final = {"meta"}


@dataclass
class Element:
    """`pieces`: what stands in it, in order."""

    tag: str
    attributes: dict[str, str]
    pieces: list[str | Element] = field(default_factory=list)

    @property
    def children(self) -> list[Element]:
        """The elements in it."""
        return [each for each in self.pieces if isinstance(each, Element)]

    @property
    def text(self) -> str:
        """The text in it, without that of the elements in it."""
        return "".join(each for each in self.pieces if isinstance(each, str))

    def every(self, tag: str, class_: str | None = None) -> list[Element]:
        """Return the elements below of this tag, and of this class."""
        return [
            each
            for each in self.walk()
            if each.tag == tag and (class_ is None or class_ in each.attributes.get("class", "").split())
        ]

    def walk(self) -> Iterator[Element]:
        yield self
        for each in self.children:
            yield from each.walk()

    @property
    def whole_text(self) -> str:
        """The text of it, and of all elements in it."""
        said = (each if isinstance(each, str) else f" {each.whole_text} " for each in self.pieces)
        return " ".join("".join(said).split()).replace(" ,", ",")

    def definitions(self) -> dict[str, str]:
        """Return the terms of the lists of definitions in it, with their meanings."""
        terms = [each.whole_text for each in self.every("dt")]
        meanings = [each.whole_text for each in self.every("dd")]
        return dict(zip(terms, meanings, strict=True))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = self._added(tag, attrs)
        assert tag not in _VOID, f"<{tag}> without /"
        self.open.append(element)

    @override
    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._added(tag, attrs)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    @override
    def handle_data(self, data: str) -> None:
        self.open[-1].pieces.append(data)

    def _added(self, tag: str, attrs: list[tuple[str, str | None]]) -> Element:
        names = [name for name, _value in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].pieces.append(element)
        return element


def read(markup: str) -> Element:
    """Return the element that has all of it. Raises: AssertionError if it is not well formed."""
    reader = _Reader()
    reader.feed(markup)
    reader.close()
    assert reader.open == [reader.root], f"not closed: {[each.tag for each in reader.open[1:]]}"
    return reader.root
