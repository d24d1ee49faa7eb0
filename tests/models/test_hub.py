"""A hub of our own on this machine: what it sends is loaded, and whatever it withholds is said."""

import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
import torch

from circuitfind.errors import ModelError
from circuitfind.models import fetch
from circuitfind.models.loading import load_model, load_vocabulary
from circuitfind.models.zoo.training import word_tokenizer
from tests.oracles.checkpoints import build

NAME = "someone/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves the files of one model as the hub does, unless told to misbehave.

    Attributes:
        files: The content of each file.
        misbehave: By the kind of request (`list` or a file's name), what to do instead.
        asked: Paths that were asked for.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.misbehave, self.asked = files, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append(self.path)
        listing = self.path.startswith("/api/")
        name = "list" if listing else self.path.rsplit("/", 1)[-1]
        kind = name if listing or self.command == "GET" else f"head of {name}"
        if act := self.server.misbehave.get(kind):
            act(self)
        elif listing and NAME in self.path:
            files = [{"rfilename": file} for file in self.server.files]
            self.answer(json.dumps({"id": NAME, "sha": COMMIT, "siblings": files}).encode())
        elif name in self.server.files:
            self.answer(self.server.files[name])
        else:
            self.send_error(404)

    def answer(self, body, length=None):
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def silent(request):
    time.sleep(15)


def endless(request):
    request.send_response(200)
    request.end_headers()
    try:
        while True:
            request.wfile.write(b" " * (1 << 20))
    except OSError:
        pass


def trickle(request):
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    try:
        for _ in range(100):
            request.wfile.write(b" ")
            time.sleep(0.05)
    except OSError:
        pass


def cut_short(request):
    request.answer(b"{}", length=1000)
    request.close_connection = True


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build("llama", dtype=torch.bfloat16, n_layers=1).save_pretrained(folder)
    word_tokenizer(["a", "b"]).save_pretrained(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def server(files, monkeypatch, tmp_path):
    """A hub of one model, and an empty cache."""
    served = Hub(dict(files))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for patience in ("FIRST_PATIENCE", "PATIENCE"):
        monkeypatch.setattr(fetch, patience, 3.0)
    yield served
    served.shutdown()
    served.server_close()


def test_a_model_of_the_hub_is_fetched_once_and_then_read_from_the_cache(server):
    first = load_model(NAME)
    assert first.name == NAME and first.weights_dtype == torch.bfloat16
    server.asked.clear()
    server.misbehave = dict.fromkeys(["list", *server.files], silent)
    assert load_model(NAME).fingerprint == first.fingerprint
    assert not server.asked


def test_a_vocabulary_is_fetched_without_weights_and_the_rest_when_it_is_needed(server):
    assert load_vocabulary(NAME) is not None
    assert not any("safetensors" in path for path in server.asked)
    assert load_model(NAME).shape.n_layers == 1


def test_weights_in_several_files_are_fetched_by_their_index(server):
    whole = server.files.pop("model.safetensors")
    server.files["model-00001-of-00001.safetensors"] = whole
    index = {"metadata": {}, "weight_map": weight_map(whole)}
    server.files["model.safetensors.index.json"] = json.dumps(index).encode()
    assert load_model(NAME).shape.n_layers == 1


def test_an_index_that_leads_elsewhere_is_refused(server):
    del server.files["model.safetensors"]
    index = {"weight_map": {"lm_head.weight": "../../secret.safetensors"}}
    server.files["model.safetensors.index.json"] = json.dumps(index).encode()
    with pytest.raises(ModelError, match="lists files that are not beside it"):
        load_model(NAME)


SAID = {
    "nothing about the model": ("list", silent, "the hub did not answer for it .*(nothing|timed)"),
    "about the model without end": ("list", endless, "not answer for it .its answer has no end"),
    "about the model in a trickle": ("list", trickle, "not answer for it .nothing came for 3 sec"),
    "no description": ("list", lambda r: r.answer(b"[1]"), "its answer is not a description"),
    "an error": ("list", lambda r: r.send_error(503), "its answer was 503 Service Unavailable"),
    "nothing of a file's size": ("head of config.json", silent, "(nothing came|timed out)"),
    "nothing of a file": ("config.json", silent, "did not send the files of 'someone/tiny' .noth"),
    "a file without end": ("config.json", endless, "it sends more than the file is long"),
    "a file in a trickle": ("tokenizer.json", trickle, "nothing came for 3 seconds"),
    "nothing of the weights": ("model.safetensors", silent, "nothing came for 3 seconds"),
    "weights without end": ("model.safetensors", endless, "it sends more than the file is long"),
    "a file cut short": ("config.json", cut_short, "did not send the files of"),
}


@pytest.mark.parametrize("case", SAID)
def test_a_hub_that_sends_this_ends_in_one_line(case, server, capfd, caplog):
    what, act, said = SAID[case]
    server.misbehave[what] = act
    with pytest.raises(ModelError, match=said) as refusal:
        load_model(NAME)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_slow_download_that_goes_on_is_not_given_up(server):
    whole = server.files["notes.txt"] = b" " * 240_000

    def slowly(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(whole)))
        request.end_headers()
        for first in range(0, len(whole), 40_000):
            request.wfile.write(whole[first : first + 40_000])
            time.sleep(1)

    server.misbehave["notes.txt"] = slowly
    assert load_model(NAME).shape.n_layers == 1


@pytest.mark.parametrize("name", ["gpt-zzz", "nobody/nothing"])
def test_a_name_that_the_hub_does_not_know_is_refused(name, server):
    with pytest.raises(ModelError, match=f"no model is named '{name}'.*.it knows no such model"):
        load_model(name)


def test_a_model_without_safetensors_on_the_hub_is_refused(server):
    del server.files["model.safetensors"]
    with pytest.raises(ModelError, match="it has no weights in safetensors format for it"):
        load_model(NAME)


def test_a_hub_that_cannot_be_reached_is_said(server, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("HF_ENDPOINT", url)
    with pytest.raises(
        ModelError, match="no model is named.*the hub did not answer for it .*efused"
    ):
        load_model("gpt-zzz")


def weight_map(whole):
    length = int.from_bytes(whole[:8], "little")
    names = [name for name in json.loads(whole[8 : 8 + length]) if name != "__metadata__"]
    return dict.fromkeys(names, "model-00001-of-00001.safetensors")


def test_what_takes_long_to_import_is_not_before_the_hub_is_asked():
    # On a machine with much to do it would double the time until an unknown name is refused.
    code = """
import sys
from circuitfind.errors import ModelError
from circuitfind.verbs.discover import run_discovery
from circuitfind.models.loading import load_model
try:
    load_model("gpt9")
except ModelError as error:
    assert "the hub did not answer for it" in str(error)
    print([name for name in ("transformers", "scipy.stats") if name in sys.modules])
"""
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
