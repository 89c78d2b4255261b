"""How well a ranking finds what is relevant: recall, reciprocal rank, nDCG and average precision.

The figures are trec_eval's, by way of pytrec_eval: a document is relevant from grade 1 on, nDCG's gain is
the grade itself, and of equal scores the larger document id comes first. A query for which a run has
nothing counts 0; a query without any relevant document is left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from bothways.errors import InputError, MissingExtraError
from bothways.evaluation.beir import RetrievalData
from bothways.evaluation.significance import paired_bootstrap
from bothways.evaluation.table import Table
from bothways.retrieval.dense import top_k, unit
from bothways.retrieval.embedder import Embedder, tokenizer_of
from bothways.retrieval.lexical import Lexical

Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
Run: TypeAlias = Mapping[str, Mapping[str, float]]
"""For each query its documents and their scores, larger is better."""


@dataclass(frozen=True)
class Measure:
    """A measure of a ranking; `cut` is how far down it looks, None the whole ranking (MAP only)."""

    kind: Literal["recall", "mrr", "ndcg", "map"]
    cut: int | None = None

    def __post_init__(self) -> None:
        if (self.kind == "map") != (self.cut is None) or (self.cut is not None and self.cut < 1):
            raise ValueError(f"{self.kind}: map has no cut, every other measure has one of at least 1")

    @property
    def title(self) -> str:
        name = {"recall": "recall", "mrr": "MRR", "ndcg": "nDCG", "map": "MAP"}[self.kind]
        return name if self.cut is None else f"{name}@{self.cut}"


MEASURES = (Measure("ndcg", 10), Measure("mrr", 10), Measure("recall", 10), Measure("recall", 100), Measure("map"))


@dataclass(frozen=True, eq=False)
class RetrievalScores:
    """A measure's value for each query, float64 [queries], in the order of `queries`.

    Attributes:
        unjudged: queries left out because no document is relevant to them.
    """

    queries: tuple[str, ...]
    values: Mapping[Measure, np.ndarray]
    unjudged: int

    def mean(self, measure: Measure) -> float:
        return float(self.values[measure].mean())


def evaluate_run(qrels: Qrels, run: Run, measures: Sequence[Measure] = MEASURES) -> RetrievalScores:
    """The measures of a run, query by query.

    Raises:
        InputError: no query with a relevant document.
        MissingExtraError: the extra `eval` is not installed.
    """
    queries = tuple(query for query, grades in qrels.items() if any(grade > 0 for grade in grades.values()))
    if not queries:
        raise InputError("no query has a relevant document; there is nothing to measure")
    try:
        import pytrec_eval
    except ImportError:
        raise MissingExtraError("evaluating retrieval", "eval") from None
    names = {measure: _trec(measure) for measure in measures}
    evaluator = pytrec_eval.RelevanceEvaluator({query: dict(qrels[query]) for query in queries}, set(names.values()))
    found = evaluator.evaluate({query: dict(run[query]) for query in queries if run.get(query)})
    values = {one: np.array([_value(one, name, found.get(query)) for query in queries]) for one, name in names.items()}
    return RetrievalScores(queries, values, len(qrels) - len(queries))


def bm25_run(data: RetrievalData, depth: int = 1000) -> Run:
    """The `depth` best documents for each query by BM25 over whole documents."""
    names = list(data.documents)
    lexical = Lexical.build(data.documents.values())
    return {key: {names[row]: score for row, score in lexical.search(query, depth)} for key, query in data.queries.items()}


def dense_run(data: RetrievalData, embedder: Embedder, depth: int = 1000) -> Run:
    """The `depth` documents of largest cosine with each query, one vector a document."""
    names = list(data.documents)
    documents = unit(embedder.encode_document(list(data.documents.values())))
    queries = unit(embedder.encode_query(list(data.queries.values())))
    values, rows = top_k(queries, documents, depth)
    found = zip(data.queries, rows, values, strict=True)
    return {key: {names[row]: float(value) for row, value in zip(*ranked, strict=True)} for key, *ranked in found}


def evaluate_retrieval(data: RetrievalData, embedders: Sequence[Embedder], measures: Sequence[Measure] = MEASURES) -> Table:
    """BM25 and each embedder in one table, with the paired difference to BM25 in the first measure.

    Raises:
        InputError: no measures, or no query with a relevant document.
        MissingExtraError: the extras `eval` and `index` are not both installed.
    """
    if not measures:
        raise InputError("name at least one measure")
    baseline = evaluate_run(data.qrels, bm25_run(data), measures)
    rows: list[tuple[str | float, ...]] = [("BM25", *(baseline.mean(measure) for measure in measures), "")]
    notes = [f"{len(data.documents):,} documents, {len(baseline.queries):,} queries"]
    if embedders:
        notes.append("95 % intervals by bootstrap over queries")
    if baseline.unjudged:
        notes.append(f"{baseline.unjudged:,} queries without a relevant document left out")
    for embedder in embedders:
        scores = evaluate_run(data.qrels, dense_run(data, embedder), measures)
        gap = paired_bootstrap(scores.values[measures[0]], baseline.values[measures[0]])
        difference = f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
        rows.append((embedder.name, *(scores.mean(measure) for measure in measures), difference))
        notes += _cut(data, embedder)
    columns = ("system", *(measure.title for measure in measures), f"{measures[0].title} over BM25")
    return Table(data.name, columns, tuple(rows), "; ".join(notes))


def _cut(data: RetrievalData, embedder: Embedder) -> list[str]:
    """A remark on documents longer than the model reads."""
    texts = [embedder.document_prompt + text for text in data.documents.values()]
    count = sum(len(ids) > embedder.max_seq_length for ids in tokenizer_of(embedder).encode(texts))
    return [f"{embedder.name} read only the first {embedder.max_seq_length} tokens of {count:,} documents"] if count else []


def _trec(measure: Measure) -> str:
    """trec_eval's name for a measure."""
    match measure.kind:
        case "recall":
            return f"recall_{measure.cut}"
        case "ndcg":
            return f"ndcg_cut_{measure.cut}"
        case "mrr":
            return "recip_rank"
        case "map":
            return "map"


def _value(measure: Measure, name: str, found: Mapping[str, float] | None) -> float:
    value = 0.0 if found is None else found[name]
    # trec_eval's reciprocal rank has no cut: a rank beyond ours is worth nothing
    return 0.0 if measure.kind == "mrr" and measure.cut is not None and value * (measure.cut + 0.5) < 1 else value
