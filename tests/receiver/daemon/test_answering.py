"""Answers on their way: which method, what pages, and what the peer says meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fullsend_protocol.shared import limits
from fullsend_protocol.wire import messages
from fullsend_receiver.daemon.answering import Methods, Parts, fitting, pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_T = TypeVar("_T")

ONE = messages.UnchangedDataset(dataset="tank", snapshot="now", guid="1")


def page(part: Sequence[messages.UnchangedDataset]) -> messages.Message:
    return messages.Unchanged(datasets=[*part])


def numbered(count: int, one: messages.UnchangedDataset = ONE) -> list[messages.UnchangedDataset]:
    return [one.model_copy(update={"guid": str(number)}) for number in range(count)]


async def at_once(work: Callable[[], _T], /) -> _T:
    return work()


async def test_the_method_of_a_question_answers_it() -> None:
    methods = Methods()

    class Answers:
        @methods.answers(messages.Check)
        async def health(self, question: messages.Check) -> Parts:
            yield question
            yield messages.Done()

    question = messages.Check()
    assert methods.questions == {messages.Check}
    assert [part async for part in methods.answer(Answers(), question)] == [question, messages.Done()]


async def test_items_come_in_pages_and_are_taken_no_earlier() -> None:
    taken: list[int] = []

    def items() -> Iterator[messages.UnchangedDataset]:
        for number, item in enumerate(numbered(5)):
            taken.append(number)
            yield item

    found = []
    async for part in pages(at_once, items(), 2, page):
        found.append(part)
        assert len(taken) == min(2 * len(found), 5)
    assert found == [page(numbered(5)[start : start + 2]) for start in (0, 2, 4)]


async def test_nothing_is_no_page() -> None:
    assert [part async for part in pages(at_once, [], 2, page)] == []


def test_page_that_would_be_too_long_comes_in_parts() -> None:
    """Names as no `zfs` makes them, six bytes of JSON for each of their characters."""
    one = messages.UnchangedDataset(dataset="\x01" * 255, snapshot="\x02" * 255, guid="1")
    items = numbered(limits.DATASETS_PAGE, one)
    found = list(fitting(items, page))
    assert len(found) == 4
    assert all(len(messages.encode(each)) <= limits.CONTROL_MAX for each in found)
    assert [each for part in found if isinstance(part, messages.Unchanged) for each in part.datasets] == items
    assert list(fitting(items[:600:2], page)) == [page(items[:600:2])]
