"""GLUE's files in the layouts users have, which split is evaluated, and the metrics by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from bothways.data.table import LabelledRows, SingleText
from bothways.errors import InputError
from bothways.evaluation.glue import TASKS, TaskData, constant_scores, read_task, task_scores

STS = "main\tfile\t2012\t1\t{}\t{}\t{}\n"
RTE = "index\tsentence1\tsentence2\tlabel\n0\tA dog ran.\tA dog moved.\tentailment\n"


def files(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / f"{name}.tsv").write_text(text, encoding="utf-8")
    return folder


def test_glues_own_layout(tmp_path: Path) -> None:
    """A test set whose labels are withheld is not evaluated on; quotes are characters like others."""
    files(tmp_path / "RTE", train=RTE, dev=RTE.replace("0\t", '7\t"'), test="index\tsentence1\tsentence2\n0\ta\tb\n")
    data = read_task(TASKS["rte"], tmp_path)
    assert (data.split, data.held.texts, data.held.labels) == ("dev", (('"A dog ran.', "A dog moved."),), ("entailment",))
    assert read_task(TASKS["rte"], tmp_path / "RTE").train.labels == ("entailment",)
    with pytest.raises(InputError, match="no labelled split 'test' of RTE; those with labels: dev"):
        read_task(TASKS["rte"], tmp_path, "test")


def test_cola_has_no_header(tmp_path: Path) -> None:
    row = "gj04\t{}\t{}\tThey {}.\n"
    folder = files(tmp_path / "CoLA", train=row.format(1, "", "slept"), dev=row.format(0, "*", "sleeps"))
    (folder / "test.tsv").write_text("index\tsentence\n0\tThey sleep.\n")
    data = read_task(TASKS["cola"], tmp_path)
    assert (data.split, data.train.texts, data.train.labels) == ("dev", (("They slept.",),), ("1",))
    assert (data.held.texts, data.held.labels) == ((("They sleeps.",),), ("0",))


def test_microsofts_layout_of_mrpc(tmp_path: Path) -> None:
    head = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    (tmp_path / "msr_paraphrase_train.txt").write_text(head + "1\t10\t11\tHe said.\tSaid he.\n", encoding="utf-8")
    (tmp_path / "msr_paraphrase_test.txt").write_text(head + '0\t10\t11\t"Yes\tNo"\n', encoding="utf-8")
    data = read_task(TASKS["mrpc"], tmp_path)
    assert (data.split, data.train.labels, data.held.texts) == ("test", ("1",), (('"Yes', 'No"'),))


def test_the_sts_benchmark_and_glues_copy_of_it(tmp_path: Path) -> None:
    original = tmp_path / "one" / "STS-B" / "original"
    original.mkdir(parents=True)
    (original / "sts-train.csv").write_text(STS.format(5.0, "a", 'same "a') + STS.format("2.50", "a", "b"))
    (original / "sts-dev.csv").write_text(STS.format(1.0, "x", "y"))
    data = read_task(TASKS["stsb"], tmp_path / "one")
    assert (data.split, data.train.texts[0], data.train.scores()) == ("dev", ("a", 'same "a'), [5.0, 2.5])
    head = "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    text = head + "0\tg\tf\t2012\t1\tnone\tnone\ta\tb\t2.5\n"
    files(tmp_path / "two" / "STS-B", train=text, dev=text)
    assert read_task(TASKS["stsb"], tmp_path / "two").held.scores() == [2.5]


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; give SST-2's"):
        read_task(TASKS["sst2"], tmp_path / "none")
    with pytest.raises(InputError, match=r"nothing to train SST-2 on; there is none of train\.tsv"):
        read_task(TASKS["sst2"], tmp_path)
    (tmp_path / "train.tsv").write_text("text\tlabel\na\t1\n")
    with pytest.raises(InputError, match="no labelled split 'test or dev' of SST-2; those with labels: none"):
        read_task(TASKS["sst2"], tmp_path)
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\na\t1\n")
    with pytest.raises(InputError, match=r"train\.tsv: no column 'sentence'; the columns there are: text, label"):
        read_task(TASKS["sst2"], tmp_path)


def test_metrics_by_hand() -> None:
    """MRPC's F1 is of paraphrases: precision 2/3, recall 2/2."""
    truth, guesses = ["1", "1", "0", "0"], ["1", "1", "1", "0"]
    assert task_scores(TASKS["mrpc"], truth, guesses) == pytest.approx({"accuracy": 0.75, "f1": 0.8})
    assert task_scores(TASKS["cola"], truth, guesses) == pytest.approx({"mcc": (2 - 0) / (3 * 2 * 2 * 1) ** 0.5})
    assert task_scores(TASKS["mrpc"], truth, ["0"] * 4) == {"accuracy": 0.5, "f1": 0}
    assert task_scores(TASKS["stsb"], [1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx({"pearson": 0.8, "spearman": 0.8})
    assert task_scores(TASKS["stsb"], [1, 2, 3], [2.5] * 3) == {"pearson": 0, "spearman": 0}


def test_a_constant_answer() -> None:
    """The class that is most frequent in training, not in what is evaluated."""

    def rows(*labels: str) -> LabelledRows:
        return LabelledRows(SingleText(), (("a",),) * len(labels), labels, ("",) * len(labels))

    data = TaskData(TASKS["mrpc"], rows("1", "0", "1"), rows("0", "0", "1"), "dev")
    assert constant_scores(data) == pytest.approx({"accuracy": 1 / 3, "f1": 0.5})


ROWS = {
    "sst2": (60614, "test", 872),
    "mrpc": (4076, "test", 1725),
    "cola": (7250, "dev", 1043),
    "stsb": (5749, "test", 1379),
    "rte": (2127, "dev", 277),
    "wnli": (518, "dev", 71),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_real_files(shared: Path, name: str) -> None:
    data = read_task(TASKS[name], shared / "data/glue")
    assert (len(data.train), data.split, len(data.held)) == ROWS[name]
    if not data.task.regression:
        assert set(data.held.labels) == set(data.train.labels)


def test_a_task_without_training_rows_and_one_beside_glue(shared: Path) -> None:
    with pytest.raises(InputError, match="nothing to train QNLI on"):
        read_task(TASKS["qnli"], shared / "data/glue")
    data = read_task(TASKS["banking77"], shared / "data/classification")
    assert (len(data.train), len(data.held), len(data.train.classes())) == (10003, 3080, 77)
