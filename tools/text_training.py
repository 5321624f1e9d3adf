"""What the e-mail models are trained with: batches, masked words, and the losses of DistilBERT and TinyBERT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import emails
import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.linalg import svds
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, log_softmax, mse_loss, softmax

LENGTH = 256  # tokens a text may have
PAD, UNKNOWN, START, END, MASK = range(5)  # ids of the special tokens
GROUP = 20  # batches that are sorted by length together


@dataclass(frozen=True)
class Batch:
    """Token ids and mask (B, L), labels (B,); ``words`` are the ids before some were hidden."""

    ids: Tensor
    mask: Tensor
    labels: Tensor
    words: Tensor

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What a transformers model is called with."""
        return {"input_ids": self.ids, "attention_mask": self.mask}


@dataclass
class Texts:
    """Training texts; each epoch sees other windows of the long ones, and texts of like length together."""

    texts: list[str]
    labels: np.ndarray
    tokenizer: Tokenizer
    size: int
    rng: np.random.Generator
    counts: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = [len(text.split()) for text in self.texts]

    def epoch(self) -> Iterator[Batch]:
        """Every text once, in an order of its own."""
        rows = [row.ids for row in self.tokenizer.encode_batch([self._window(i) for i in range(len(self.texts))])]
        order = self.rng.permutation(len(rows))
        batches = []
        for start in range(0, len(order), self.size * GROUP):
            near = sorted(order[start : start + self.size * GROUP], key=lambda i: len(rows[i]))
            batches += [near[k : k + self.size] for k in range(0, len(near), self.size)]
        for k in self.rng.permutation(len(batches)):
            yield padded([rows[i] for i in batches[k]], self.labels[batches[k]])

    def _window(self, index: int) -> str:
        spare = self.counts[index] - emails.FIRST - emails.LAST
        if spare <= 0 or self.rng.random() < 0.5:
            return emails.shorten(self.texts[index])
        cut = int(self.rng.integers(0, spare + 1))
        first = int(self.rng.integers(0, cut + 1))
        return emails.shorten(self.texts[index], first, self.counts[index] - (cut - first))


def padded(rows: list[list[int]], labels: np.ndarray) -> Batch:
    """Rows of ids as one batch, filled up to the longest."""
    ids = torch.full((len(rows), max(map(len, rows))), PAD)
    for k, row in enumerate(rows):
        ids[k, : len(row)] = torch.tensor(row)
    return Batch(ids, (ids != PAD).long(), torch.from_numpy(labels), ids)


def hide(batch: Batch, share: float, vocabulary: int, generator: torch.Generator) -> Batch:
    """Put ``[MASK]`` (one time in ten another token) in the place of a share of the words."""
    chance = torch.rand(batch.ids.shape, generator=generator)
    others = torch.randint(MASK + 1, vocabulary, batch.ids.shape, generator=generator)
    chosen = (chance < share) & (batch.words > MASK)
    ids = torch.where(chosen, torch.where(chance < 0.1 * share, others, torch.full_like(others, MASK)), batch.words)
    return Batch(ids, batch.mask, batch.labels, batch.words)


def neighbours(rows: list[list[int]], count: int, width: int, reach: int = 4) -> Tensor:
    """A first table of word embeddings: what stands near what in the training texts, (count, width).

    The left singular vectors, times the root of the singular values, of the positive pointwise mutual information
    (Levy and Goldberg 2014), scaled to BERT's spread.
    """
    flat = np.concatenate([np.array([*row, *[PAD] * reach]) for row in rows])
    pairs = [(flat[:-step], flat[step:]) for step in range(1, reach + 1)]
    left, right = (np.concatenate([pair[side] for pair in pairs]) for side in range(2))
    real = (left > MASK) & (right > MASK)
    table = coo_array((np.ones(int(real.sum())), (left[real], right[real])), shape=(count, count)).tocsr()
    table = (table + table.T).tocoo()
    seen = np.maximum(table.sum(axis=0), 1.0)
    share = np.log(table.data * seen.sum() / (seen[table.row] * seen[table.col]))
    positive = coo_array((np.maximum(share, 0.0), (table.row, table.col)), shape=table.shape).tocsr()
    vectors, values, _ = svds(positive, k=width, random_state=0)
    embeddings = vectors * np.sqrt(values)
    return torch.from_numpy(0.02 * embeddings / embeddings.std()).float()


class WordHead(nn.Module):
    """BERT's head for hidden words; its last layer is the embedding table."""

    def __init__(self, table: nn.Parameter) -> None:
        super().__init__()
        count, width = table.shape
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(count))
        self._table = [table]  # in a list, so that it is not a parameter twice

    def forward(self, hidden: Tensor) -> Tensor:
        """Hidden states (M, width) → logits (M, vocabulary)."""
        return self.norm(nn.functional.gelu(self.dense(hidden))) @ self._table[0].T + self.bias


@contextmanager
def watched(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the outputs of all query and key layers of one forward pass, in order."""
    found: list[Tensor] = []
    layers = [m for name, m in model.named_modules() if name.endswith((".query", ".key"))]
    handles = [m.register_forward_hook(lambda _m, _i, out: found.append(out)) for m in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def attention_scores(found: list[Tensor], heads: int) -> list[Tensor]:
    """Attention before softmax, (B, heads, L, L) a layer, from what `watched` collected."""
    scores = []
    for query, key in zip(found[::2], found[1::2], strict=True):
        q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (query, key))
        scores.append(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5)
    return scores


def soft_targets(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Hinton's loss (arXiv 1503.02531), times T² so that its gradient does not depend on T."""
    goal = softmax(teacher / temperature, -1)
    return kl_div(log_softmax(student / temperature, -1), goal, reduction="batchmean") * temperature**2


def distilbert_loss(student: Tensor, teacher: Tensor, logits: Tensor, goals: Tensor, words: Tensor) -> Tensor:
    """DistilBERT's three losses (arXiv 1910.01108) with the weights of its code: 5 · soft + 2 · words + 1 · cosine.

    Args:
        student, teacher: Last hidden states at the places that are no padding, (M, width).
        logits, goals: Their answers at hidden words, (H, vocabulary).
        words: The words there, (H,).
    """
    cosine = 1 - cosine_similarity(student, teacher, dim=-1).mean()
    return 5 * soft_targets(logits, goals, 2.0) + 2 * cross_entropy(logits, words) + cosine


class TinyBertLoss(nn.Module):
    """TinyBERT's losses on embeddings, hidden states and attention (arXiv 1909.10351); layer m learns from layer 2m."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__()
        self.embedding, self.hidden = (nn.Linear(narrow, wide, bias=False) for _ in range(2))

    def forward(
        self,
        student: tuple[tuple[Tensor, ...], list[Tensor]],
        teacher: tuple[tuple[Tensor, ...], list[Tensor]],
        mask: Tensor,
    ) -> Tensor:
        """Both arguments: hidden states (embeddings first) and attention scores of every layer; mask (B, L)."""
        (hidden, scores), (goals, attention) = student, teacher
        step = len(attention) // len(scores)
        real, pairs = mask.bool(), (mask[:, None, :, None] * mask[:, None, None, :]).float()
        loss = mse_loss(self.embedding(hidden[0])[real], goals[0][real])
        for m, (state, score) in enumerate(zip(hidden[1:], scores, strict=True), 1):
            other = attention[step * m - 1]
            loss = loss + mse_loss(self.hidden(state)[real], goals[step * m][real])
            loss = loss + ((score - other).square() * pairs).sum() / (pairs.sum() * score.shape[1])
        return loss
