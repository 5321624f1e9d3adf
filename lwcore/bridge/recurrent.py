"""Recurrent layers, written out step by step: LSTM, GRU and the plain RNN, both directions."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lwcore.bridge.node import Function, NodeView, rule

State = tuple[torch.Tensor, ...]
Cell = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, State], State]
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def _lstm(x: torch.Tensor, r: torch.Tensor, wb: torch.Tensor, rb: torch.Tensor, state: State) -> State:
    """One step; gates in ONNX's order: input, output, forget, cell."""
    h, c = state
    i, o, f, g = (x + h @ r.T + wb + rb).chunk(4, dim=-1)
    cell = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def _gru(before: bool) -> Cell:
    """One step; gates in ONNX's order: update, reset, hidden. `before`: the reset is applied before the product."""

    def step(x: torch.Tensor, r: torch.Tensor, wb: torch.Tensor, rb: torch.Tensor, state: State) -> State:
        (h,) = state
        size = h.shape[-1]
        gates = x + wb
        z, s = torch.sigmoid(gates[..., : 2 * size] + h @ r[: 2 * size].T + rb[: 2 * size]).chunk(2, dim=-1)
        rest, last, bias = gates[..., 2 * size :], r[2 * size :].T, rb[2 * size :]
        n = torch.tanh(rest + (s * h) @ last + bias if before else rest + s * (h @ last + bias))
        return ((1 - z) * n + z * h,)

    return step


def _plain(x: torch.Tensor, r: torch.Tensor, wb: torch.Tensor, rb: torch.Tensor, state: State) -> State:
    return (torch.tanh(x + state[0] @ r.T + wb + rb),)


@rule("LSTM", "GRU", "RNN")
def _recurrent(view: NodeView) -> Function:
    directions = 2 if view.attr("direction", "forward") == "bidirectional" else 1
    usual = _USUAL[view.op] * directions
    if view.attr("activations", usual) not in (usual, [name.encode() for name in usual]) or view.attr("layout", 0):
        raise view.refuse("expected the usual activations and steps on the first axis, found others.")
    if view.has(4) or view.has(7) or view.attr("clip") is not None:
        raise view.refuse("expected no sequence lengths, peepholes or clipping, found some.")
    cell: Cell = {"LSTM": _lstm, "GRU": _gru(not view.attr("linear_before_reset", 0)), "RNN": _plain}[view.op]
    hidden, states = view.attr("hidden_size"), 2 if view.op == "LSTM" else 1
    backwards = view.attr("direction", "forward") == "reverse"

    def run(
        x: torch.Tensor, w: torch.Tensor, r: torch.Tensor, bias: torch.Tensor | None = None, *rest: torch.Tensor | None
    ) -> object:
        given = [*rest[1 : 1 + states], *(None,) * states][:states]
        zero = x.new_zeros(directions, x.shape[1], hidden)
        first = [zero if state is None else state for state in given]
        biases = x.new_zeros(directions, 2 * w.shape[1]) if bias is None else bias
        sides, ends = [], []
        for side in range(directions):
            reverse = backwards or side == 1
            wb, rb = biases[side].chunk(2)
            state: State = tuple(s[side] for s in first)
            steps = []
            for step in (x @ w[side].T).flip(0) if reverse else x @ w[side].T:
                state = cell(step, r[side], wb, rb, state)
                steps.append(state[0])
            sides.append(torch.stack(steps[::-1] if reverse else steps))
            ends.append(state)
        found = [torch.stack(sides, dim=1), *(torch.stack(end) for end in zip(*ends, strict=True))]
        return found[0] if view.outputs() == 1 else tuple(found[: view.outputs()])

    return run
