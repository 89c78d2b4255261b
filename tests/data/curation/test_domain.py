"""Labels to a classifier, a threshold and honest figures; the same labels, the same bytes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from bothways.data.curation.domain import NAME, WEIGHTS, Domain, DomainSelection, DomainTraining, LeastPrecision, LeastRecall
from bothways.data.curation.domain_features import Features, features
from bothways.data.curation.domain_training import choose_threshold, measure, train_domain, wilson
from bothways.data.curation.step import Opened, Step
from bothways.data.table import LabelledRows, SingleText
from bothways.errors import InputError

pytest.importorskip("sklearn")
SEA = ["ship", "harbour", "tide", "sail", "anchor", "mast", "sailor", "reef", "storm", "deck", "captain", "rope"]
LAND = ["plough", "field", "barn", "horse", "hay", "meadow", "farmer", "fence", "orchard", "cow", "village", "mill"]
BOTH = ["the", "a", "was", "and", "in", "of", "with", "old", "near", "long", "morning", "they", "saw", "one", "day"]


def labelled(count: int = 120, noise: float = 0.0, seed: int = 0) -> LabelledRows:
    draw = random.Random(seed)
    texts, labels = [], []
    for number in range(count):
        label = ("sea", "land", "hills")[number % 3]
        own = SEA if (label == "sea") != (draw.random() < noise) else LAND
        texts.append((" ".join(draw.choices(BOTH, k=12) + draw.choices(own, k=4)),))
        labels.append(label)
    return LabelledRows(SingleText(), tuple(texts), tuple(labels), tuple(f"labels.csv:{n}" for n in range(count)))


def shuffled(rows: LabelledRows) -> LabelledRows:
    order = random.Random(1).sample(range(len(rows)), len(rows))
    return LabelledRows(
        rows.columns,
        tuple(rows.texts[n] for n in order),
        tuple(rows.labels[n] for n in order),
        tuple(rows.where[n] for n in order),
    )


def test_a_domain_is_learned_and_measured_on_what_it_has_not_seen() -> None:
    domain = train_domain(labelled(), DomainTraining(wanted=("sea",)))
    file = domain.file
    assert file.labels == {"hills": 40, "land": 40, "sea": 40}
    assert (file.held_out.rows, file.held_out.recall.whole) == (36, 12)
    assert file.cross_validated.rows == 84
    assert file.held_out.precision.value == 1.0
    assert file.held_out.recall.value is not None
    assert file.held_out.recall.value > 0.9
    assert domain.score("The captain dropped anchor near the reef.") > file.threshold
    assert domain.score("The farmer mended the fence near the orchard.") < file.threshold


def test_labels_that_mean_nothing_are_found_out() -> None:
    """The figures are of texts not seen: a classifier that only knows its own rows by heart has no use."""
    rows = labelled(noise=0.5, count=240)
    file = train_domain(rows, DomainTraining(wanted=("sea",), aim=LeastRecall(least=0.9))).file
    assert file.held_out.precision.value is not None
    assert file.held_out.precision.value < 0.6


def test_the_aim_is_reached_where_it_was_set() -> None:
    rows = labelled(noise=0.05, count=300)
    precise = train_domain(rows, DomainTraining(wanted=("sea",), aim=LeastPrecision(least=0.9))).file
    complete = train_domain(rows, DomainTraining(wanted=("sea",), aim=LeastRecall(least=0.95))).file
    assert precise.cross_validated.precision.value is not None
    assert complete.cross_validated.recall.value is not None
    assert precise.cross_validated.precision.value >= 0.9
    assert complete.cross_validated.recall.value >= 0.95
    assert precise.threshold > complete.threshold


def test_thresholds_by_hand() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.2])
    wanted = np.array([True, True, False, True, False, False])
    # precision from the top: 1, 1, 2/3, (the two of 0.6 together) 3/5, 1/2
    assert choose_threshold(scores, wanted, LeastPrecision(least=1.0)) == pytest.approx(0.75)
    assert choose_threshold(scores, wanted, LeastPrecision(least=0.6)) == pytest.approx(0.4)
    assert choose_threshold(scores, wanted, LeastRecall(least=0.6)) == pytest.approx(0.75)
    assert choose_threshold(scores, wanted, LeastRecall(least=1.0)) == pytest.approx(0.4)
    with pytest.raises(InputError, match=r"no threshold reaches a precision of 0\.9 on these labels, the best is 0\.500"):
        choose_threshold(np.array([0.9, 0.5]), np.array([False, True]), LeastPrecision(least=0.9))
    found = measure(scores, wanted, 0.65)
    assert (found.precision.part, found.precision.whole, found.recall.part, found.recall.whole) == (2, 3, 2, 3)


def test_wilson_by_the_book() -> None:
    share = wilson(81, 263)  # Newcombe 1998, method 3: 0.2553 to 0.3662
    assert share.value == pytest.approx(0.308, abs=1e-3)
    assert share.low == pytest.approx(0.2553, abs=1e-4)
    assert share.high == pytest.approx(0.3662, abs=1e-4)
    assert wilson(0, 20).low == 0
    assert wilson(0, 20).high == pytest.approx(0.1611, abs=1e-4)
    assert str(wilson(0, 0)) == "of nothing"


def test_the_same_to_the_byte_in_any_order(tmp_path: Path) -> None:
    rows = labelled()
    for name, one in (("a", rows), ("b", rows), ("c", shuffled(rows))):
        train_domain(one, DomainTraining(wanted=("sea",))).save(tmp_path / name)
    for name in (NAME, WEIGHTS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_selection_from_a_folder(tmp_path: Path) -> None:
    domain = train_domain(labelled(), DomainTraining(wanted=("sea",)))
    domain.save(tmp_path)
    step = DomainSelection(folder=str(tmp_path))
    assert isinstance(step, Step)
    assert all(file.is_file() for file in step.files())
    opened = step.open()
    assert isinstance(opened, Opened)
    sea, land = "A sailor on deck of the ship.", "A cow in the meadow, a horse in the barn."
    assert Domain.load(tmp_path).score(sea) == domain.score(sea)
    verdict = opened(sea)
    assert (verdict.text, verdict.reason, sum(verdict.counts.values())) == (sea, None, 1)
    assert (opened(land).text, opened(land).reason) == (None, "outside the domain")
    assert opened.facts["held out"]["rows"] == 36
    other = DomainSelection(folder=str(tmp_path), threshold=0.0).open()
    assert other(land).text == land
    assert "held out" not in other.facts  # they were measured at another threshold


def test_damaged_or_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bothways domain train"):
        DomainSelection(folder=str(tmp_path)).open()
    train_domain(labelled(), DomainTraining(wanted=("sea",))).save(tmp_path)
    data = bytearray((tmp_path / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(data)
    with pytest.raises(InputError, match="not the weights"):
        Domain.load(tmp_path)


def test_labels_that_cannot_be_used() -> None:
    rows = labelled()
    with pytest.raises(InputError, match="no row is labelled 'sky'; the labels are hills, land, sea"):
        train_domain(rows, DomainTraining(wanted=("sky",)))
    with pytest.raises(InputError, match="4 labelled texts in the domain; label at least 10"):
        train_domain(labelled(12), DomainTraining(wanted=("sea",)))
    with pytest.raises(InputError, match="0 labelled texts outside it"):
        train_domain(rows, DomainTraining(wanted=("sea", "land", "hills")))
    twice = LabelledRows(rows.columns, (*rows.texts, rows.texts[0]), (*rows.labels, "land"), (*rows.where, "more.csv:1"))
    with pytest.raises(InputError, match=r"more.csv:1: the same text as labels.csv:0, labelled the other way"):
        train_domain(twice, DomainTraining(wanted=("sea",)))
    empty = LabelledRows(rows.columns, (*rows.texts, ("?!",)), (*rows.labels, "land"), (*rows.where, "more.csv:2"))
    with pytest.raises(InputError, match=r"more.csv:2: a text without words"):
        train_domain(empty, DomainTraining(wanted=("sea",)))


def test_rows_that_repeat_are_learned_from_once() -> None:
    rows = labelled()
    more = LabelledRows(rows.columns, rows.texts * 2, rows.labels * 2, rows.where * 2)
    assert train_domain(more, DomainTraining(wanted=("sea",))).file.repeated == 120
    assert (
        train_domain(more, DomainTraining(wanted=("sea",))).weights == train_domain(rows, DomainTraining(wanted=("sea",))).weights
    ).all()


def test_features() -> None:
    settings = Features(bits=12, words=2, shortest=3, longest=3)
    bins, values = features("the tide the tide", settings)
    word_bins = bins < 1 << 12
    # the (2), tide (2), the-tide (2), tide-the (1); then the characters of "the tide the tide"
    assert sorted(values[word_bins] * np.sqrt(3 * (1 + np.log(2)) ** 2 + 1)) == pytest.approx([1, *[1 + np.log(2)] * 3])
    assert np.sum(values[word_bins] ** 2) == pytest.approx(1)
    assert np.sum(values[~word_bins] ** 2) == pytest.approx(1)
    assert len(features("?!", settings)[0]) == 0
    long = " ".join(f"w{n % 977}" for n in range(3000))  # counted, where short ones are sorted
    for bits in (12, 20):
        bins, values = features(long, Features(bits=bits))
        assert (np.diff(bins) > 0).all()
        assert np.sum(values**2) == pytest.approx(2)
