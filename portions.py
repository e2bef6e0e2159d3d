"""Cutting what is to be done into portions of neighbours, so that none takes long or much memory."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate


def portions(*limits: tuple[Iterable[int], int]) -> Iterator[slice]:
    """The portions of a sequence, as slices in its order, each as long as every limit allows.

    A limit is the weight of each item, none of them negative, and how much a portion may weigh. An item that weighs
    more than that is a portion by itself.
    """
    scales = [(list(accumulate(weights, initial=0)), most) for weights, most in limits]
    count = len(scales[0][0]) - 1
    first = 0
    while first < count:
        end = min(bisect_right(sums, sums[first] + most, lo=first) - 1 for sums, most in scales)
        end = max(end, first + 1)
        yield slice(first, end)
        first = end
