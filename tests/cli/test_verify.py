"""`bothways verify`: folders and servers, the exit codes, what is written and what is refused."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tests.cli.conftest import Refused, Run, save

import bothways
from bothways.cli.output import command
from bothways.errors import InputError
from bothways.evaluation.server import connect
from bothways.model.settings import EmbeddingSettings, write_settings

Answer = Callable[[str, dict[str, Any]], object]
Serve = Callable[[Answer], str]
QUICK = ("--rounds", "0")


@pytest.fixture
def other(saved: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be the candidate."""
    return Path(shutil.copytree(saved, tmp_path / "other"))


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server whose answer to a path and a body is JSON, bytes, or an exit status; its URL is returned."""
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                said = answer(self.path, body)
                status, data = (said, b"no such thing\nhere") if isinstance(said, int) else (200, said)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(data if isinstance(data, bytes) else json.dumps(data).encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def openai(model: Path, change: Callable[[np.ndarray], np.ndarray] = lambda vectors: vectors) -> Answer:
    loaded = bothways.load(model)

    def answer(path: str, body: dict[str, Any]) -> object:
        if path != "/v1/embeddings" or body["model"] != str(model):
            return 404
        vectors = change(loaded.encode(body["input"])).tolist()
        rows = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
        return {"object": "list", "data": rows[::-1], "model": body["model"]}

    return answer


def tei(model: Path, change: Callable[[np.ndarray], np.ndarray] = lambda vectors: vectors) -> Answer:
    loaded = bothways.load(model)
    return lambda path, body: change(loaded.encode(body["inputs"])).tolist() if path == "/embed" else 404


STYLES = {"openai": (openai, "/v1/embeddings"), "tei": (tei, "/embed")}


# -- folders ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("default")
def test_a_copy(run: Run, model: Path, other: Path) -> None:
    (other / "README.md").write_text("# A copy\n")
    ran = run("verify", model, other)
    assert (ran.code, ran.err) == (0, "")
    assert "PASSED" in ran.out
    assert str(other / "certificate.json") in ran.out
    assert "130 of 130 alike" in ran.out
    certificate = json.loads((other / "certificate.json").read_text())
    assert certificate["verdict"] == "passed"
    assert certificate["reference"]["fingerprint"] == certificate["candidate"]["fingerprint"]
    assert {"torch", "bothways", "python"} <= set(certificate["versions"])
    assert "Parity with" in (other / "README.md").read_text()
    facts = json.loads(run("info", other, "--json").out)["certificate"]
    assert (facts["verdict"], facts["current"], facts["certificate"]) == ("passed", True, certificate)


def test_json(run: Run, model: Path, other: Path) -> None:
    ran = run("verify", model, other, "--json", "--no-write", *QUICK)
    certificate = json.loads(ran.out)
    assert (ran.code, certificate["verdict"], certificate["latency"]) == (0, "passed", None)
    assert not (other / "certificate.json").exists()


@pytest.mark.parametrize("number", [0, 1])
def test_a_changed_weight(run: Run, model: Path, other: Path, number: int) -> None:
    """Exit code 1, and one line that names the first diverging layer; info says that the certificate is of other weights."""
    assert run("verify", model, other, *QUICK).code == 0
    tensors = load_file(other / "model.safetensors")
    tensors[f"bert.encoder.layer.{number}.output.dense.weight"][3, 3] += 0.5
    save_file(tensors, other / "model.safetensors")
    assert "they have changed since" in run("info", other).out
    ran = run("verify", model, other, *QUICK)
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("outside the budget: layers: ")
    assert f"first beyond: layer {number}" in ran.err
    assert "FAILED" in ran.out
    assert "first outside the budget" in next(
        line for line in ran.out.splitlines() if line.strip().startswith(f"layer {number} ")
    )
    assert json.loads((other / "certificate.json").read_text())["first_diverging"] == f"layer {number}"
    loose = [word for limit in ("mean_cosine=0", "least_cosine=0", "neighbours=0", "top1=0") for word in ("--budget", limit)]
    limits = [word for limit in ("layers=9", "vectors=9", "logits=9") for word in ("--budget", limit)]
    assert run("verify", model, other, *loose, *limits, *QUICK).code == 0


def test_other_pooling(run: Run, model: Path, other: Path) -> None:
    write_settings(EmbeddingSettings(pooling="cls", declared=True), other, 24, 16)
    ran = run("verify", model, other, *QUICK)
    assert ran.code == 1
    assert "pooling: mean, candidate: cls (budget equal)" in ran.err


def test_another_tokenizer(run: Run, model: Path, other: Path) -> None:
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["cat"], words["mat"] = words["mat"], words["cat"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    (model.parent / "texts.txt").write_text("the dog ran\nthe cat sat on the mat\nfish swim\n")
    options = ("--texts", model.parent / "texts.txt", *QUICK)
    loose = [word for limit in ("mean_cosine=0", "least_cosine=0", "neighbours=0", "vectors=9") for word in ("--budget", limit)]
    ran = run("verify", model, other, *options, *loose)
    assert ran.code == 1
    assert "token ids: 2 of 3 alike (budget equal; first other: text 2, 'the cat sat on the mat'" in ran.err
    assert run("verify", model, other, *options, *loose, "--allow-tokenizer").code == 0
    assert run("verify", model, other, *options, "--allow-tokenizer").code == 1


def test_a_certificate_that_cannot_be_written(run: Run, model: Path, other: Path) -> None:
    """It is said, and the comparison stands."""
    (other / "certificate.json").mkdir()
    ran = run("verify", model, other, *QUICK)
    assert ran.code == 0
    assert ran.err.startswith("no certificate: cannot write")
    assert "PASSED" in ran.out
    (other / "certificate.json").rmdir()
    (other / "README.md").write_bytes(b"caf\xe9")
    ran = run("verify", model, other, *QUICK)
    assert ran.code == 0
    assert f"no line in the card: {other / 'README.md'}: not utf-8 at byte 3; it is left as it was\n" in ran.err
    assert (other / "README.md").read_bytes() == b"caf\xe9"
    assert json.loads((other / "certificate.json").read_text())["verdict"] == "passed"


def test_a_repository_as_the_candidate(run: Run, model: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = bothways.load
    monkeypatch.setattr(bothways, "load", lambda name, **options: load(other if name == "me/repository" else name, **options))
    ran = run("verify", model, "me/repository", *QUICK)
    assert (ran.code, ran.err) == (0, "no certificate was written: me/repository is no folder here; --json prints it\n")
    assert run("verify", model, "me/repository", "--no-write", *QUICK).err == ""


def test_a_changed_head(run: Run, model: Path, other: Path) -> None:
    """No vector shows it, and info says that the certificate is of other weights."""
    assert run("verify", model, other, *QUICK).code == 0
    assert "they have changed since" not in run("info", other).out
    tensors = load_file(other / "model.safetensors")
    name = next(name for name in tensors if name.startswith("cls."))
    tensors[name] = tensors[name] + 0.5
    save_file(tensors, other / "model.safetensors")
    assert "they have changed since" in run("info", other).out
    assert run("verify", model, other, *QUICK).code == 1


def test_a_certificate_without_checks(run: Run, model: Path, other: Path) -> None:
    assert run("verify", model, other, *QUICK).code == 0
    written = json.loads((other / "certificate.json").read_text())
    (other / "certificate.json").write_text(json.dumps({**written, "checks": [], "versions": {}}))
    ran = run("info", other)
    assert ran.code == 0, ran
    assert "no figures" in ran.out


# -- servers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_a_server(run: Run, model: Path, serve: Serve, style: str) -> None:
    make, path = STYLES[style]
    url = serve(make(model))
    for given in (url, url + "/", url + path):
        ran = run("verify", model, given, "--json", "--rounds", "1")
        assert (ran.code, ran.err) == (0, ""), ran
        certificate = json.loads(ran.out)
        assert certificate["candidate"]["name"] == url + path
        assert certificate["candidate"]["api"] == style
        assert (certificate["layers"], certificate["candidate"]["fingerprint"]) == ([], None)
    assert run("verify", model, url, "--api", style, *QUICK).code == 0


@pytest.mark.parametrize("style", STYLES)
def test_a_server_of_other_vectors(run: Run, model: Path, serve: Serve, style: str) -> None:
    def noisy(vectors: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(0).normal(size=vectors.shape)
        return vectors + 0.05 * np.abs(vectors).max() * noise

    ran = run("verify", model, serve(STYLES[style][0](model, noisy)), *QUICK)
    assert ran.code == 1
    assert ran.err.startswith("outside the budget: mean cosine: 0.9")


def test_a_server_that_normalises(run: Run, model: Path, serve: Serve) -> None:
    url = serve(tei(model, lambda vectors: vectors / np.linalg.norm(vectors, axis=1, keepdims=True)))
    ran = run("verify", model, url, *QUICK)
    assert ran.code == 1
    assert "normalisation: none, candidate: length 1 (budget equal)" in ran.err


RUBBISH: dict[str, tuple[object, str]] = {
    "no JSON": (b"<html>hello</html>", "its answer is not JSON: <html>hello</html>"),
    "another shape": ({"vectors": [[1.0]]}, "its answer holds no vectors as the tei way has them"),
    "words": ([["a", "b"]], "its answer holds no vectors"),
    "ragged": ([[1.0, 2.0], [1.0]], "its answer holds no vectors"),
    "too few": ([], "its answer holds no vectors"),
    "too many": ([[1.0], [2.0]], "answers 1 texts with 2 vectors"),
    "not finite": (b"[[NaN, 1.0]]", "its vectors are not finite"),
    "a refusal": (422, "refuses with status 422: no such thing here"),
}


@pytest.mark.parametrize("kind", RUBBISH)
def test_a_server_that_answers_rubbish(refused: Refused, model: Path, serve: Serve, kind: str) -> None:
    said, message = RUBBISH[kind]
    url = serve(lambda path, body: said)
    assert f"{url}/embed: {message}" in refused("verify", model, url, "--api", "tei")


def test_neither_way_is_answered(refused: Refused, model: Path, serve: Serve) -> None:
    url = serve(lambda path, body: 404)
    message = refused("verify", model, url)
    assert all(f"{url}{path}: refuses with status 404" in message for _, path in STYLES.values())


def test_a_server_of_vectors_of_another_size(refused: Refused, model: Path, serve: Serve) -> None:
    url = serve(tei(model, lambda vectors: vectors[:, :5]))
    assert f"{url}/embed: its vectors have 5 numbers, those of the reference, {model}, 24" in refused("verify", model, url)


def test_a_server_whose_vectors_change_their_size(refused: Refused, model: Path, serve: Serve) -> None:
    url = serve(tei(model, lambda vectors: vectors[:, : 5 if len(vectors) == 32 else 24]))
    assert "answers with vectors of different sizes" in refused("verify", model, url)


def test_nobody_there(refused: Refused, model: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    message = refused("verify", model, f"http://127.0.0.1:{port}")
    assert f"http://127.0.0.1:{port}/v1/embeddings: cannot be reached" in message
    assert "is the server running?" in message
    assert "cannot be reached" in refused("verify", model, "http://")


INDICES: dict[str, list[object]] = {
    "twice": [0, 0],
    "from 7": [7, 8],
    "words": ["0", "1"],
    "none": [None, None],
    "truths": [False, True],
    "fractions": [0.0, 1.0],
}


@pytest.mark.parametrize("kind", INDICES)
def test_vectors_with_broken_numbers(kind: str, serve: Serve) -> None:
    rows = [{"index": index, "embedding": [1.0, 2.0]} for index in INDICES[kind]]
    url = serve(lambda path, body: {"data": rows if len(body["input"]) > 1 else [{"embedding": [1.0]}]})
    with (
        connect(url, "openai") as one,
        pytest.raises(InputError, match="`index` of its vectors must be 0 to 1, each once; it is"),
    ):
        one.encode(["a", "b"])
    some = {"data": [{"index": 0, "embedding": [1.0]}, {"embedding": [2.0]}]}
    with pytest.raises(InputError, match=r"must be 0 to 1, each once; it is \[0\]"):
        connect(serve(lambda path, body: some), "openai")


def test_vectors_without_numbers(serve: Serve) -> None:
    asked: list[Any] = []

    def answer(path: str, body: dict[str, Any]) -> object:
        asked.append(body["encoding_format"])
        return {"data": [{"embedding": [float(len(text))]} for text in body["input"]]}

    with connect(serve(answer), "openai") as one:
        assert one.encode(["a", "bbb"]).tolist() == [[1.0], [3.0]]
    assert set(asked) == {"float"}


def test_vectors_that_are_words(serve: Serve) -> None:
    def row(embedding: object) -> Answer:
        return lambda path, body: {"data": [{"index": 0, "embedding": embedding}]}

    with pytest.raises(InputError, match=r"its vectors are text \(base64\?\)"):
        connect(serve(row("AACAPwAAAEA=")), "openai")
    for embedding in (["1.0", "2.0"], [True, False], [10**400, 1], [1.0, "2"]):
        with pytest.raises(InputError, match="its answer holds no vectors"):
            connect(serve(row(embedding)), "openai")
    with pytest.raises(InputError, match="not finite"):
        connect(serve(row([1e200, 1.0])), "openai")


# -- secrets ------------------------------------------------------------------------------------------


def test_secrets_of_a_url(run: Run, model: Path, serve: Serve) -> None:
    """They are sent, and neither shown nor kept; the query stays behind the path."""
    paths: list[str] = []
    known = openai(model)

    def answer(path: str, body: dict[str, Any]) -> object:
        paths.append(path)
        return known(path.partition("?")[0], body)

    place = serve(answer).removeprefix("http://")
    ran = run("verify", model, f"http://me:s3cret@{place}/v1?api_key=K3Y&x=y#part", "--json", *QUICK)
    assert ran.code == 0, ran
    assert set(paths) == {"/v1/embeddings?api_key=K3Y&x=y"}
    certificate = json.loads(ran.out)
    assert certificate["candidate"]["name"] == f"http://***@{place}/v1/embeddings?api_key=***&x=***"
    assert not any(secret in ran.out + ran.err for secret in ("s3cret", "K3Y", "me:"))


def test_secrets_in_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bothways", "verify", "a", "https://me:s3cret@host:1/v1?api_key=K3Y", "--rounds=0"])
    assert command() == "bothways verify a 'https://***@host:1/v1?api_key=***' --rounds=0"


def test_secrets_in_what_is_refused(refused: Refused, model: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOTHWAYS_API_KEY", "t0ken")
    place = serve(lambda path, body: f"<who is s3cret, {path} and t0ken?>".encode()).removeprefix("http://")
    for url in (
        f"http://me:s3cret@{place}?api_key=K3Y",
        "http://me:s3cret@127.0.0.1:1/?K3Y",
        "http://me:s3cret@127.0.0.1:99999",
        "http://me:s3cret/K3Y@127.0.0.1",
        "HTTP://me:s3cret@[::1",
    ):
        message = refused("verify", model, url)
        assert not any(secret in message for secret in ("s3cret", "K3Y", "t0ken")), message
        assert "***" in message
    assert "s3cret" not in refused("verify", "http://me:s3cret@host", model)


def test_a_key(serve: Serve, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx2

    seen: list[str | None] = []
    send = httpx2.Client.send

    def spy(self: httpx2.Client, request: httpx2.Request, **options: Any) -> httpx2.Response:
        seen.append(request.headers.get("Authorization"))
        return send(self, request, **options)

    monkeypatch.setattr(httpx2.Client, "send", spy)
    url = serve(lambda path, body: {"data": [{"embedding": [1.0]}]})
    for key, header in (("t0ken", "Bearer t0ken"), ("", None)):
        monkeypatch.setenv("BOTHWAYS_API_KEY", key)
        connect(url, "openai").client.close()
        assert seen.pop() == header
    monkeypatch.setenv("BOTHWAYS_API_KEY", "caf\xe9\n1")
    with pytest.raises(InputError, match="BOTHWAYS_API_KEY: it has letters that no header can hold"):
        connect(url, "openai")


# -- what cannot be used ----------------------------------------------------------------------------


def test_bad_input(refused: Refused, model: Path, other: Path, tmp_path: Path) -> None:
    assert "./nowhere: no such folder" in refused("verify", model, "./nowhere")
    assert "./nowhere: no such folder" in refused("verify", "./nowhere", other)
    (tmp_path / "empty.txt").touch()
    assert f"{tmp_path / 'empty.txt'}: the file is empty" in refused("verify", model, other, "--texts", tmp_path / "empty.txt")
    assert "--budget layer=1: no field 'layer'" in refused("verify", model, other, "--budget", "layer=1")
    (other / "tokenizer.json").unlink()
    (other / "tokenizer_config.json").unlink()
    assert f"{other} has no tokenizer" in refused("verify", model, other)
    assert not (other / "certificate.json").exists()


def test_vectors_of_different_sizes(refused: Refused, model: Path, tmp_path: Path) -> None:
    wide = save(tmp_path / "wide", size=12)
    assert f"{wide}: its vectors have 12 numbers" in refused("verify", model, wide)
