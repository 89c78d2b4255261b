"""Retrieval measures worked out by hand, the reader of BEIR folders, and published figures on real data."""

from __future__ import annotations

import gzip
import json
import math
from collections import defaultdict
from pathlib import Path

import pytest
from tests.retrieval.toy import Fixed

from bothways.errors import InputError
from bothways.evaluation.beir import RetrievalData, read_beir
from bothways.evaluation.retrieval import MEASURES, Measure, bm25_run, dense_run, evaluate_retrieval, evaluate_run

NDCG, MAP = Measure("ndcg", 10), Measure("map")


def scores(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]], *measures: Measure) -> list[float]:
    found = evaluate_run(qrels, run, measures)
    return [found.mean(measure) for measure in measures]


def test_by_hand() -> None:
    """Ranks: c, b (grade 2), a (grade 1), d."""
    measures = [Measure("recall", 2), Measure("recall", 3), Measure("mrr", 1), Measure("mrr", 2), Measure("ndcg", 3), MAP]
    values = scores({"q": {"a": 1, "b": 2}}, {"q": {"a": 0.7, "b": 0.8, "c": 0.9, "d": 0.1}}, *measures)
    gain, ideal = 2 / math.log2(3) + 1 / math.log2(4), 2 + 1 / math.log2(3)
    assert values == pytest.approx([1 / 2, 1, 0, 1 / 2, gain / ideal, (1 / 2 + 2 / 3) / 2])


@pytest.mark.parametrize("rank", [1, 2, 3, 7, 9, 10])
@pytest.mark.parametrize("cut", [1, 3, 9, 10])
def test_reciprocal_rank_stops_at_its_cut(rank: int, cut: int) -> None:
    run = {"q": {f"d{place}": float(-place) for place in range(1, 12)}}
    assert scores({"q": {f"d{rank}": 1}}, run, Measure("mrr", cut)) == [pytest.approx(1 / rank if rank <= cut else 0)]


def test_a_query_without_results_counts_and_one_without_relevant_documents_does_not() -> None:
    qrels = {"found": {"a": 1}, "missed": {"a": 1}, "empty": {"a": 1}, "unjudged": {"a": 0}}
    found = evaluate_run(qrels, {"found": {"a": 1.0}, "empty": {}, "unjudged": {"a": 1.0}, "stranger": {"a": 1.0}}, [NDCG])
    assert found.queries == ("found", "missed", "empty")
    assert found.values[NDCG].tolist() == [1, 0, 0]
    assert found.unjudged == 1
    with pytest.raises(InputError, match="no query has a relevant document"):
        evaluate_run({"unjudged": {"a": 0}}, {})


def test_ties_are_broken_as_trec_eval_does() -> None:
    assert scores({"q": {"a": 1}}, {"q": {"a": 1.0, "b": 1.0}}, Measure("mrr", 1)) == [0]
    assert scores({"q": {"b": 1}}, {"q": {"a": 1.0, "b": 1.0}}, Measure("mrr", 1)) == [1]


@pytest.mark.parametrize(("kind", "cut"), [("map", 10), ("ndcg", None), ("recall", 0)])
def test_measures_that_are_none(kind: str, cut: int | None) -> None:
    with pytest.raises(ValueError, match="cut"):
        Measure(kind, cut)  # type: ignore[arg-type]


SMALL = RetrievalData(
    "small",
    {"d1": "red apples", "d2": "green pears", "d3": "blue sky " + "and more " * 20},
    {"q1": "apples", "q2": "the heavens", "q3": "nobody judged this"},
    {"q1": {"d1": 1}, "q2": {"d3": 1}, "q3": {"d1": 0}},
)
EMBEDDER = Fixed(
    {
        "red apples": [9, 0, 0],  # a length that an inner product would reward
        "green pears": [0, 1, 0],
        SMALL.documents["d3"]: [0, 0, 1],
        "apples": [1, 0, 0],
        "the heavens": [0.2, 0, 1],
        "nobody judged this": [1, 1, 1],
    }
)


def test_runs() -> None:
    assert list(bm25_run(SMALL)["q1"]) == ["d1"]
    assert bm25_run(SMALL)["q2"] == {}
    run = dense_run(SMALL, EMBEDDER, depth=2)
    assert list(run["q2"]) == ["d3", "d1"]
    assert run["q2"]["d3"] == pytest.approx(1 / math.hypot(0.2, 1), rel=1e-6)


def test_queries_and_documents_are_encoded_each_in_their_way() -> None:
    embedder = Fixed({"red": [1, 0], "blue": [0, 1]}, queries={"red": [0, 1]})
    data = RetrievalData("colours", {"a": "red", "b": "blue"}, {"q": "red"}, {"q": {"a": 1}})
    assert list(dense_run(data, embedder, depth=1)["q"]) == ["b"]


def test_the_table_has_bm25_beside_each_embedder() -> None:
    table = evaluate_retrieval(SMALL, [EMBEDDER], [NDCG, Measure("recall", 1)])
    assert list(table.columns) == ["system", "nDCG@10", "recall@1", "nDCG@10 over BM25"]
    assert [list(row)[:3] for row in table.rows] == [["BM25", 0.5, 0.5], ["fixed", 1.0, 1.0]]
    assert list(table.rows[1])[3] == "+0.5000 (+0.0000 to +1.0000)"
    assert "3 documents, 2 queries" in table.note
    assert "1 queries without a relevant document left out" in table.note
    assert "fixed read only the first 18 tokens of 1 documents" in table.note


# -- BEIR folders -------------------------------------------------------------------------------


def write(folder: Path, corpus: list[object], queries: list[object], qrels: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    with gzip.open(folder / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in corpus)
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    return folder


CORPUS: list[object] = [{"_id": "1", "title": "A title", "text": 'with "quotes'}, {"_id": "2", "title": "", "text": "bare"}]
QUERIES: list[object] = [{"_id": "1", "text": "one?"}, {"_id": "x", "text": "not judged", "metadata": {}}]


def test_read_beir(tmp_path: Path) -> None:
    data = read_beir(write(tmp_path / "tiny", CORPUS, QUERIES, "1\t2\t3\n1\t1\t0\n"))
    assert data.name == "tiny"
    assert data.documents == {"1": 'A title with "quotes', "2": "bare"}
    assert data.queries == {"1": "one?"}
    assert data.qrels == {"1": {"2": 3, "1": 0}}


@pytest.mark.parametrize(
    ("corpus", "queries", "qrels", "message"),
    [
        (CORPUS, QUERIES, "1\t7\t1\n", r"test\.tsv:2: no document '7'"),
        (CORPUS, QUERIES, "1\t1\t1\n7\t1\t1\n", r"test\.tsv:3: no query '7'"),
        (CORPUS, QUERIES, "1\t1\thigh\n", r"test\.tsv:2: the score 'high' is no integer"),
        (CORPUS, QUERIES, "1\t1\t1\n1\t1\t2\n", r"test\.tsv:3: .* judged twice, and differently"),
        ([*CORPUS, CORPUS[0]], QUERIES, "", r"corpus\.jsonl\.gz:3: the id '1' is there twice"),
        ([{"_id": 1, "title": "", "text": ""}], QUERIES, "", r"corpus\.jsonl\.gz:1: _id, title, text must be texts"),
        (CORPUS, [{"_id": "1"}], "", r"queries\.jsonl:1: no column 'text'"),
    ],
)
def test_faulty_folders(tmp_path: Path, corpus: list[object], queries: list[object], qrels: str, message: str) -> None:
    folder = write(tmp_path / "faulty", corpus, queries, qrels)
    with pytest.raises(InputError, match=message):
        read_beir(folder)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no corpus\.jsonl or corpus\.jsonl\.gz"):
        read_beir(tmp_path)
    folder = write(tmp_path / "tiny", CORPUS, QUERIES, "")
    with pytest.raises(InputError, match=r"dev\.tsv: no such split; there are: test"):
        read_beir(folder, "dev")


# -- published figures --------------------------------------------------------------------------


def test_scifact_bm25(shared: Path) -> None:
    """Thakur et al. (2104.08663) give .665; other tokenisations and parameters lie between .66 and .69."""
    data = read_beir(shared / "data/retrieval/scifact")
    assert (len(data.documents), len(data.queries), sum(map(len, data.qrels.values()))) == (5183, 300, 339)
    [(system, ndcg, *_)] = evaluate_retrieval(data, []).rows
    assert system == "BM25"
    assert 0.66 <= float(str(ndcg)) <= 0.69


def test_trec_deep_learning_2019(shared: Path) -> None:
    """The run that comes with the data has MAP .3766 and nDCG@10 .4973."""
    folder = shared / "data/retrieval/trec-dl2019"
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    run: dict[str, dict[str, float]] = defaultdict(dict)
    for query, _, document, grade in map(str.split, (folder / "qrels/2019qrels-pass.txt").read_text().splitlines()):
        qrels[query][document] = int(grade)
    with gzip.open(folder / "runs/run.trec2019-bm25.res.gz", "rt") as file:
        for query, _, document, _, score, _ in (line.split() for line in file if line.count(" ") == 5):
            run[query][document] = float(score)
    found = evaluate_run(qrels, run)
    assert (len(found.queries), len(MEASURES)) == (43, 5)
    assert [round(found.mean(measure), 4) for measure in (MAP, NDCG)] == [0.3766, 0.4973]
