"""The whole job on text every machine with Python has: tokenizer, pretraining, a task, an embedder, a search.

Every figure stands beside the same network without pretraining, and beside a baseline that counts words.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bothways.data.packing import SampleCount
from bothways.data.rows import JsonLines
from bothways.data.source import Column
from bothways.data.table import Contrast, SingleText
from bothways.errors import InputError, MissingExtraError
from bothways.evaluation.beir import RetrievalData
from bothways.evaluation.retrieval import Measure, bm25_run, dense_run, evaluate_run
from bothways.evaluation.table import Table, to_text
from bothways.files import replacing
from bothways.model.model import Model
from bothways.objectives.contrastive import InfoNce
from bothways.recipes.carrying_out import Trained
from bothways.recipes.finetuning import finetune, train_embedder
from bothways.recipes.pretraining import pretrain
from bothways.recipes.published import modernbert_short
from bothways.recipes.runs import Embedding, Finetuning
from bothways.recipes.standard_library import Function, Module, functions, modules, swapped_operands
from bothways.retrieval.index import Index
from bothways.training.optimizer import AdamW
from bothways.training.report import report
from bothways.training.schedule import Budget, Fraction, Hours, Linear, Tokens
from bothways.training.sections import Section, Text
from bothways.training.settings import TrainingConfig

QUESTIONS = (
    "How do I delete a folder and everything in it?",
    "compute the median of a list of numbers",
    "open a web page in the browser",
)
_MARK = ".bothways-demo"
BLANK = "if not isinstance(name, str): [MASK] TypeError"


@dataclass(frozen=True)
class Plan:
    """Seconds of steps for each stage, and how much text to look at; the defaults take under ten minutes on two cores."""

    pretraining: float = 200.0
    task: float = 45.0
    embedder: float = 90.0
    queries: int = 400
    most_modules: int | None = None


@dataclass(frozen=True)
class Outcome:
    """The demo's table, its answers and its report."""

    results: Table
    answers: Table
    report: Path


def demo(folder: Path, say: Callable[[str], None], plan: Plan | None = None) -> Outcome:
    """Run the demo in `folder`; a finished stage is not done again.

    Raises:
        InputError: the folder holds other things.
        MissingExtraError: an extra of `bothways[all]` is not installed.
        Interrupted: after Ctrl-C; the same call goes on.
    """
    plan = plan or Plan()
    _claim(folder)
    say("Reading the standard library")
    library = modules()[: plan.most_modules]
    _corpus(folder, library)
    say("1/5 Pretraining a small ModernBERT on its sources and docstrings")
    source = Column(table=JsonLines(paths=(str(folder / "corpus.jsonl"),)))
    run = modernbert_short(source, Hours(hours=plan.pretraining / 3600), "tiny")
    run = replace(run, training=replace(run.training, evaluate_every=200, log_every=5))
    base = pretrain(run, folder / "pretrained", say, "make demo")
    guesses = base.model.fill(BLANK, top=3)[0]
    say(f"    {BLANK}  ->  " + ", ".join(f"{one.token} {one.probability:.0%}" for one in guesses))
    say("2/5 Fine-tuning: were the operands of this statement swapped?")
    task, words = _task(folder, library, str(base.folder / "model"), plan, say)
    say("3/5 Training an embedder: which function does this summary belong to?")
    embedders, held = _embedders(folder, library, str(base.folder / "model"), plan, say)
    say("4/5 Looking for held-out functions by their summaries, beside BM25")
    recalls = _recalls(held, embedders)
    say("5/5 Indexing the docstrings and answering questions")
    answers = _answers(folder, library, embedders["pretrained"])
    results = Table(
        "What pretraining brings",
        ("task", "metric", "pretrained", "same network from scratch", "counting words"),
        (
            ("swapped operands", "accuracy", task["pretrained"], task["scratch"], words),
            ("summary to function", "recall@10", recalls["pretrained"], recalls["scratch"], recalls["bm25"]),
        ),
        f"held-out modules of the standard library; {base.result.tokens:,} tokens of pretraining, after which "
        f"{_accuracy(base):.0%} of the masked tokens of held-out text are guessed right; counting words is a "
        "bag-of-words logistic regression for the statements and BM25 for the functions",
    )
    page = _report(folder, base, results, answers, guesses)
    return Outcome(results, answers, page)


def _claim(folder: Path) -> None:
    """Work only in a folder that is new, empty or a demo's."""
    mark = folder / _MARK
    if folder.exists() and not mark.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: holds other things than a demo; choose a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()


def _corpus(folder: Path, library: list[Module]) -> None:
    """Docstrings and sources of the modules that are not held out, in pieces of a screenful."""

    def documents() -> Iterable[Mapping[str, Any]]:
        for module in library:
            if not module.held_out:
                lines = module.text.splitlines()
                yield from ({"text": "\n".join(lines[i : i + 40])} for i in range(0, len(lines), 40))
                yield from ({"text": one.docstring} for one in functions(module))

    _jsonl(folder / "corpus.jsonl", (one for one in documents() if one["text"].strip()))


def _task(
    folder: Path, library: list[Module], model: str, plan: Plan, say: Callable[[str], None]
) -> tuple[dict[str, float], float]:
    """Accuracy on held-out statements, pretrained and from scratch with the same tokens, and counting words."""
    rows: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for module in library:
        rows[module.held_out] += swapped_operands(module, random.Random(module.name))
    random.Random(0).shuffle(rows[True])
    rows[True] = rows[True][:2000]
    for held, name in ((False, "train"), (True, "held-out")):
        _jsonl(folder / f"operands-{name}.jsonl", ({"text": code, "label": label} for code, label in rows[held]))
    run = Finetuning(
        model=model,
        table=JsonLines(paths=(str(folder / "operands-train.jsonl"),)),
        held_out=JsonLines(paths=(str(folder / "operands-held-out.jsonl"),)),
        columns=SingleText(),
        batching=SampleCount(samples=64),
        training=_training(1e-3, Hours(hours=plan.task / 3600)),
        overflow="cut",
    )
    first = finetune(run, folder / "operands", say, "make demo")
    say("    the same network from scratch")
    scratch = replace(run, from_scratch=True, training=_training(1e-3, Tokens(count=first.result.tokens)))
    second = finetune(scratch, folder / "operands-scratch", say, "make demo")
    return {"pretrained": _accuracy(first), "scratch": _accuracy(second)}, _bag_of_words(rows[False], rows[True])


def _embedders(
    folder: Path, library: list[Module], model: str, plan: Plan, say: Callable[[str], None]
) -> tuple[dict[str, Model], list[Function]]:
    """Embedders trained on summary-function pairs, from pretrained and from fresh weights; and held-out functions."""
    pairs = {one.summary: one for module in library if not module.held_out for one in functions(module)}
    held = {one.summary: one for module in library if module.held_out for one in functions(module)}
    _jsonl(folder / "pairs.jsonl", ({"anchor": one.summary, "positive": one.source} for one in pairs.values()))
    run = Embedding(
        model=model,
        table=JsonLines(paths=(str(folder / "pairs.jsonl"),)),
        columns=Contrast(),
        loss=InfoNce(symmetric=True),
        batching=SampleCount(samples=64),
        training=_training(1e-3, Hours(hours=plan.embedder / 3600)),
        overflow="cut",
    )
    first = train_embedder(run, folder / "embedder", say, "make demo")
    say("    the same network from scratch")
    scratch = replace(run, from_scratch=True, training=_training(1e-3, Tokens(count=first.result.tokens)))
    second = train_embedder(scratch, folder / "embedder-scratch", say, "make demo")
    fresh = [one for one in held.values() if one.summary not in pairs]
    return {"pretrained": first.model, "scratch": second.model}, random.Random(0).sample(fresh, min(plan.queries, len(fresh)))


def _recalls(held: list[Function], embedders: Mapping[str, Model]) -> dict[str, float]:
    """recall@10 of each function for its summary, among all held-out functions."""
    data = RetrievalData(
        name="functions",
        documents={one.name: one.source for one in held},
        queries={one.name: one.summary for one in held},
        qrels={one.name: {one.name: 1} for one in held},
    )
    recall = Measure("recall", 10)
    runs = {"bm25": bm25_run(data), **{name: dense_run(data, model) for name, model in embedders.items()}}
    return {name: evaluate_run(data.qrels, run, (recall,)).mean(recall) for name, run in runs.items()}


def _answers(folder: Path, library: list[Module], embedder: Model) -> Table:
    """The three nearest docstrings to each question, by meaning and by words together."""
    documents = {one.name: one.docstring for module in library for one in functions(module)}
    Index.create_or_update(folder / "index", documents.items(), embedder)
    index = Index.open(folder / "index", embedder)
    rows = []
    for question in QUESTIONS:
        for hit in index.search(question, 3, method="hybrid"):
            rows.append((question, hit.document, " ".join(hit.text.split())[:90]))
    return Table("Three questions", ("question", "function", "its docstring"), tuple(rows), "hybrid search: vectors and BM25")


def _bag_of_words(train: list[tuple[str, str]], held: list[tuple[str, str]]) -> float:
    """Accuracy of logistic regression on word and symbol counts: it cannot see order."""
    try:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
    except ImportError:
        raise MissingExtraError("the bag-of-words baseline", "eval") from None
    model = make_pipeline(CountVectorizer(token_pattern=r"\w+|[^\w\s]"), LogisticRegression(max_iter=200))
    model.fit([code for code, _ in train], [label for _, label in train])
    return float(model.score([code for code, _ in held], [label for _, label in held]))


def _accuracy(trained: Trained) -> float:
    value = trained.result.evaluation["accuracy"]
    assert value is not None  # the held-out rows are not empty
    return value


def _training(lr: float, budget: Budget) -> TrainingConfig:
    schedule = Linear(warmup=Fraction(of=0.1))
    return TrainingConfig(optimizer=AdamW(lr=lr), schedule=schedule, budget=budget, log_every=5)


def _report(folder: Path, base: Trained, results: Table, answers: Table, guesses: list[Any]) -> Path:
    filled = Table(
        "Filling a blank", ("token", "probability", "text"), tuple((g.token, g.probability, g.text) for g in guesses), BLANK
    )
    extra: list[Section] = [to_text(results), to_text(filled), to_text(answers)]
    extra.append(Text("Your own data", "bothways pretrain my_texts/ --out runs/mine --hours 1"))
    return report(
        base.folder,
        title="Bothways: from raw text to a searched encoder",
        command="make demo",
        metrics=("accuracy", "masked", "mask_token"),
        extra=extra,
        path=folder / "report.html",
    )


def _jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
