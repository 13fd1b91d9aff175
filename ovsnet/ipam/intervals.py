"""Sets of integers as sorted lists of inclusive, disjoint intervals: what a pool may give, before anything is leased."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

Interval = tuple[int, int]


class Intervals:
    """An immutable set of integers, compact for a /8 or a /64.

    >>> list(Intervals([(1, 5), (4, 9)]) - Intervals([(3, 6)]))
    [(1, 2), (7, 9)]
    """

    __slots__ = ("_parts", "_starts")

    def __init__(self, parts: Iterable[Interval] = ()) -> None:
        merged: list[Interval] = []
        for first, last in sorted(parts):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(merged[-1][1], last))
            else:
                merged.append((first, last))
        self._parts = tuple(merged)
        self._starts = [first for first, _ in merged]

    def __iter__(self) -> Iterator[Interval]:
        return iter(self._parts)

    def __contains__(self, value: int) -> bool:
        index = bisect_right(self._starts, value) - 1
        return index >= 0 and value <= self._parts[index][1]

    def __and__(self, other: Intervals) -> Intervals:
        return Intervals(
            (max(a, c), min(b, d)) for a, b in self._parts for c, d in other._parts if max(a, c) <= min(b, d)
        )

    def __sub__(self, other: Intervals) -> Intervals:
        left: list[Interval] = []
        for first, last in self._parts:
            rest = first
            for cut_first, cut_last in other._parts:
                if cut_last < rest or cut_first > last:
                    continue
                if cut_first > rest:
                    left.append((rest, cut_first - 1))
                rest = cut_last + 1
            if rest <= last:
                left.append((rest, last))
        return Intervals(left)

    def size(self) -> int:
        """How many integers are in the set."""
        return sum(last - first + 1 for first, last in self._parts)

    def within(self, first: int, last: int) -> Intervals:
        """The part of the set between `first` and `last`, both included."""
        return self & Intervals([(first, last)])
