"""Every operator rule of the bridge computes what onnxruntime computes."""

from __future__ import annotations

import pytest

from lwcore.bridge import RULES
from tests.operators import elementwise, layers, shapes
from tests.operators.case import Case, assert_same, node_model

CASES = [*layers.CASES, *elementwise.CASES, *shapes.CASES]


@pytest.mark.parametrize("c", CASES, ids=str)
def test_operator_computes_what_onnxruntime_computes(c: Case) -> None:
    assert_same(node_model(c), c.inputs, c.within)


def test_every_rule_is_covered_by_a_case() -> None:
    assert set(RULES) - {c.op for c in CASES} == set()
