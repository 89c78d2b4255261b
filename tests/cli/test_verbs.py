"""Every verb end to end, on a tiny model."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.cli.conftest import LONGEST, WORDS, Run

import bothways
from bothways.cli.output import Advance

TEXTS = ["the cat sat", "fish swim in the sea", "the dog ran under a tree"]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join([TEXTS[0], "", *TEXTS[1:]]) + "\n")
    return file


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "cat.txt").write_text(TEXTS[0])
    (folder / "deep" / "fish.md").write_text(TEXTS[1])
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "nothing.txt").touch()
    return folder


# -- embed --------------------------------------------------------------------------------------


def test_embed_to_npy(run: Run, model: Path, lines: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "vectors.npy"
    ran = run("embed", model, lines, "--out", out)
    assert (ran.code, ran.out) == (0, f"3 vectors of 24 numbers in {out}\n")
    assert ran.err == f"{lines}: 1 blank line left out; rows of the result are not numbers of lines\n"
    np.testing.assert_allclose(np.load(out), bothways.load(model).encode(TEXTS), atol=1e-6)
    assert [path.name for path in out.parent.iterdir()] == ["vectors.npy"]


def test_embed_to_parquet_and_json(run: Run, model: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "table.csv", tmp_path / "vectors.parquet"
    table.write_text('id,body\n1,the cat sat\n2,"fish swim\nin the sea"\n')
    out.write_bytes(b"PAR1 an older one")
    ran = run("embed", model, table, "--out", out, "--column", "body", "--json")
    assert ran.code == 0, ran
    assert json.loads(ran.out) == {"out": str(out), "model": str(model), "texts": 2, "size": 24}
    rows = pq.read_table(out).to_pydict()
    assert rows["where"] == [f"{table}:2", f"{table}:3"]
    assert rows["text"] == ["the cat sat", "fish swim\nin the sea"]
    np.testing.assert_allclose(rows["vector"], bothways.load(model).encode(rows["text"]), atol=1e-6)


def test_embed_counts_blank_lines_before_a_text(run: Run, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "texts.txt"
    for content, counted in (("\nthe cat\n \nthe dog\n\n", "2 blank lines left out"), ("the cat\nthe dog\n\n\n", "")):
        file.write_text(content)
        ran = run("embed", model, file, "--out", tmp_path / "v.npy")
        assert ran.code == 0
        assert counted in ran.err
        assert bool(counted) == bool(ran.err)


def test_embed_splits_as_told(run: Run, model: Path, lines: Path, tmp_path: Path) -> None:
    ran = run("embed", model, lines, "--out", tmp_path / "v.npy", "--split", "paragraph", "--json")
    assert json.loads(ran.out)["texts"] == 2


def test_embed_prompts(run: Run, model: Path, lines: Path, tmp_path: Path) -> None:
    """A prompt given, and the folder's own by role."""
    settings = {"prompts": {"query": "the fish ", "document": "a tree "}}
    (model / "modules.json").write_text('[{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}]')
    (model / "config_sentence_transformers.json").write_text(json.dumps(settings))
    loaded = bothways.load(model)
    cases = {("--prompt", "sea "): "sea ", ("--role", "query"): "the fish ", ("--role", "document"): "a tree ", (): ""}
    for options, prompt in cases.items():
        assert run("embed", model, lines, "--out", tmp_path / "v.npy", *options).code == 0
        expected = loaded.encode([prompt + text for text in TEXTS], prompt="")
        np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-6, err_msg=str(options))


def test_embed_long_texts(run: Run, model: Path, tmp_path: Path) -> None:
    """Cut with one warning that counts, refused, or read in chunks; and the caller's warnings filters are left alone."""
    file, out = tmp_path / "long.txt", tmp_path / "v.npy"
    file.write_text(f"{WORDS}\nthe cat\n{WORDS}\n")
    filters = list(warnings.filters)
    ran = run("embed", model, file, "--out", out)
    assert (ran.code, ran.err.count("\n")) == (0, 1)
    assert ran.err.startswith(f"warning: 2 of 3 texts were cut to {LONGEST - 2} tokens")
    assert warnings.filters == filters
    cut = np.load(out)
    assert run("embed", model, file, "--out", out, "--overflow", "chunk").err == ""
    assert not np.allclose(np.load(out)[0], cut[0])
    whole = out.read_bytes()
    ran = run("embed", model, file, "--out", out, "--overflow", "error")
    assert ran.code == 1
    assert ran.err.startswith(f"error: 2 of 3 texts have more than {LONGEST - 2} tokens")
    assert out.read_bytes() == whole


@pytest.mark.parametrize(("overflow", "total"), [("cut", 2), ("chunk", None)])
def test_embed_does_not_count_pieces_as_texts(
    run: Run, model: Path, tmp_path: Path, overflow: str, total: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    totals: list[int | None] = []

    @contextmanager
    def counted(total: int | None, unit: str) -> Iterator[Advance]:
        totals.append(total)
        yield lambda sequences, tokens: told.append(sequences)

    monkeypatch.setattr("bothways.cli.embed.progress", counted)
    (tmp_path / "long.txt").write_text(f"{WORDS}\nthe cat\n")
    assert run("embed", model, tmp_path / "long.txt", "--out", tmp_path / "v.npy", "--overflow", overflow).code == 0
    assert totals == [total]
    assert sum(told) == (2 if total else 3)


# -- fill ---------------------------------------------------------------------------------------


def test_fill(run: Run, model: Path) -> None:
    text = "the [MASK] sat on a [MASK]"
    expected = bothways.load(model).fill(text, 2)
    data = json.loads(run("fill", model, text, "--top", "2", "--json").out)
    assert [[guess["token"] for guess in blank] for blank in data["blanks"]] == [[g.token for g in blank] for blank in expected]
    ran = run("fill", model, text)
    assert [len(block.splitlines()) for block in ran.out.split("\n\n")] == [5, 5]
    assert expected[0][0].token in ran.out.splitlines()[0]


# -- index and search ---------------------------------------------------------------------------


def test_index_and_search_a_folder(run: Run, model: Path, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "index"
    ran = run("index", model, notes, "--out", out)
    assert ran.code == 0, ran
    assert ran.out == f"{out}: 2 added, 0 changed, 0 unchanged, 0 removed; 2 documents in 2 passages (0 cut into several)\n"
    assert ran.err == f"{notes}: 2 files; 1 skipped (1 .png); 1 empty\n"

    # moved, and named from elsewhere: nothing is embedded again
    (notes / "cat.txt").write_text(TEXTS[2])
    monkeypatch.chdir(notes.parent)
    moved = notes.rename(tmp_path / "moved").name
    again = json.loads(run("index", "model", moved, "--out", "index", "--json").out)
    assert (again["added"], again["changed"], again["unchanged"], again["removed"]) == (0, 1, 1, 0)
    assert again["skipped_files"] == {"suffix": {".png": 1}, "empty": 1}

    monkeypatch.chdir("/")
    for method in ("dense", "bm25", "hybrid"):
        data = json.loads(run("search", out, "fish swim in the sea", "-k", "1", "--method", method, "--json").out)
        assert [(hit["document"], hit["text"]) for hit in data["hits"]] == [("deep/fish.md", TEXTS[1])], method
    ran = run("search", out, "fish swim in the sea", "--model", model)
    assert ran.out.splitlines()[0] == f" 1.0000  deep/fish.md (0-{len(TEXTS[1])})"
    assert ran.out.splitlines()[1].strip() == TEXTS[1]
    assert run("search", out, "unheard", "--method", "bm25").out == "nothing found\n"


def test_index_a_table_by_its_names(run: Run, model: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "table.parquet", tmp_path / "index"
    pq.write_table(pa.table({"doi": [7, 8], "body": [TEXTS[0], WORDS]}), table)
    options = ("--column", "body", "--id-column", "doi", "--max-tokens", "10", "--overlap", "2")
    report = json.loads(run("index", model, table, "--out", out, *options, "--json").out)
    assert (report["documents"], report["chunked"]) == (2, 1)
    assert json.loads((out / "index.json").read_text())["overlap"] == 2
    hits = json.loads(run("search", out, TEXTS[0], "-k", "1", "--json").out)["hits"]
    assert hits[0]["document"] == "7"


# -- tokenizer ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "mask"), [("wordpiece", "[MASK]"), ("bpe", "<mask>"), ("unigram", "<mask>")])
def test_tokenizer(run: Run, notes: Path, tmp_path: Path, kind: str, mask: str) -> None:
    out = tmp_path / kind
    (notes / "more.txt").write_text(f"{WORDS}. " * 5)
    ran = run("tokenizer", "train", notes, "--out", out, "--kind", kind, "--vocab-size", "300", "--json")
    assert ran.code == 0, ran
    data = json.loads(ran.out)
    assert (data["kind"], data["special_tokens"]["mask_token"]) == (kind, mask)
    assert ("no more than" in ran.err) == (data["vocab_size"] < 300)
    report = json.loads(run("tokenizer", "report", out, notes, "--json").out)
    assert (report["texts"], report["unknown_rate"], report["texts_lost"]) == (3, 0.0, 0)
    assert "tokens per word" in run("tokenizer", "report", out, notes).out
    assert sorted(path.name for path in out.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


# -- convert and info ---------------------------------------------------------------------------


def test_convert(run: Run, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "half"
    data = json.loads(run("convert", model, out, "--dtype", "bfloat16", "--json").out)
    assert (data["family"], data["dtype"]) == ("bert", "bfloat16")
    assert data["files"] == {path.name: path.stat().st_size for path in out.iterdir()}
    assert not list(tmp_path.glob(".*"))
    ours, theirs = bothways.load(model), bothways.load(out)
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor.bfloat16().float(), theirs.state_dict()[name]), name
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({key: value for key, value in config.items() if key != "model_type"}))
    assert run("convert", model, tmp_path / "a").err.endswith("family='bert'; --family bert)\n")
    ran = run("convert", model, tmp_path / "a", "--family", "bert")
    assert ran.out.startswith(f"{tmp_path / 'a'}: bert, {ours.parameters_count:,} parameters, float32\n  README.md ")


def test_info(run: Run, model: Path) -> None:
    facts = json.loads(run("info", model, "--length", "8", "--length", "99", "--json").out)
    vocab, size, inner = facts["vocab_size"], 24, 20
    attention, mlp = 4 * size * size + 4 * size, 2 * size * inner + inner + size
    head = size * size + size + 2 * size + vocab
    embedding = (vocab + LONGEST + 2) * size + 2 * size
    parts = {"embedding": embedding, "attention": 2 * attention, "mlp": 2 * mlp, "norms": 2 * 4 * size, "head masked_lm": head}
    assert facts["parameters"] == {**parts, "total": sum(parts.values())}
    assert facts["bytes"] == {"float32": 4 * sum(parts.values()), "bfloat16": 2 * sum(parts.values())}
    # two operations a weight, and attention's two products with every other token; no text is longer than the longest
    for length in (8, LONGEST):
        spent = {"attention": 2 * (2 * 4 * size * size + 4 * length * size), "mlp": 2 * 2 * 2 * size * inner}
        assert facts["flops_per_token"][str(length)] == {"embedding": 0, **spent, "total": sum(spent.values())}
    assert list(facts["flops_per_token"]) == ["8", str(LONGEST)]
    assert facts["head_flops"] == {"masked_lm": 2 * (size * size + vocab * size)}
    assert facts["forward_bytes"]["float32"] == 2 * facts["forward_bytes"]["bfloat16"] > 0
    assert (facts["family"], facts["context"], facts["positions"]) == ("bert", LONGEST, ["learned"])
    assert (facts["embedding"]["pooling"], facts["license"], facts["certificate"]) == ("mean", None, None)
    assert (facts["tokenizer"]["kind"], facts["tokenizer"]["special_tokens"]["mask_token"]) == ("WordPiece", "[MASK]")
    text = run("info", model).out
    (total,) = (line.split() for line in text.splitlines() if line.startswith("total"))
    assert total[1] == f"{sum(parts.values()):,}"
    assert "these are the defaults" in text
    assert "license         not stated" in text


def test_info_of_the_papers(run: Run, model: Path) -> None:
    """The license as the card or the file states it; a certificate that is none is said to be unreadable."""
    (model / "LICENSE").write_text("\n   Some License\nVersion 1\n")
    (model / "certificate.json").write_text("{")
    facts = json.loads(run("info", model, "--json").out)
    assert facts["license"] == "Some License"
    assert "certificate.json: " in facts["certificate"]["error"]
    assert "certificate     unreadable: " in run("info", model).out
    cards = {"---\nlicense: mit\n---\n# Mine\n": "mit", "# Mine\n": "Some License", "---\n: [\n---\n": "Some License"}
    for card, stated in cards.items():
        (model / "README.md").write_text(card)
        assert json.loads(run("info", model, "--json").out)["license"] == stated


def test_unknown_config_keys_are_a_warning_or_a_refusal(run: Run, model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "hiden_size": 9}))
    ran = run("convert", model, tmp_path / "out")
    assert ran.code == 0
    assert ran.err == f"warning: {model / 'config.json'}: keys that this family does not know: hiden_size\n"
    assert run("convert", model, tmp_path / "strict", "--strict").code == 1
    assert run("info", model, "--strict").code == 1
    assert not (tmp_path / "strict").exists()
