"""Common factors of two shapes: what a reshape does to channels is found without touching data."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from lwcore.analysis.reshaping import blocks_of

SIZES = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=5)


@given(SIZES, SIZES, SIZES)
def test_the_factors_of_an_axis_multiply_up_to_its_size(left: list[int], middle: list[int], right: list[int]) -> None:
    before = (*left, *middle, *right)
    after = (*left, math.prod(middle), *reversed(right))
    blocks = blocks_of(before, after)
    assert math.prod(blocks.sizes) == math.prod(before)
    for shape, axes in ((before, blocks.inputs), (after, blocks.outputs)):
        for size, parts in zip(shape, axes, strict=True):
            assert parts is None or math.prod(blocks.sizes[i] for i in parts) == size


def test_a_picture_and_its_groups_have_the_group_size_in_common() -> None:
    blocks = blocks_of((64, 7, 7), (8, 8, 49))
    assert blocks.sizes == (8, 8, 7, 7)
    assert blocks.inputs == (range(0, 2), range(2, 3), range(3, 4))
    assert blocks.outputs == (range(0, 1), range(1, 2), range(2, 4))


def test_axes_that_do_not_fit_leave_the_others_alone() -> None:
    blocks = blocks_of((5, 8, 7), (5, 7, 8))
    assert blocks.inputs == (range(0, 1), None, None)
    assert blocks.outputs == (range(0, 1), None, None)
