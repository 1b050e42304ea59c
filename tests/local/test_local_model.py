"""The real model, end to end, over plain `http.client`. Skipped with a reason where it cannot run."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from sidestream.errors import ConfigError
from sidestream.local import LocalModel, fetch_weights
from sidestream.local.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.local, pytest.mark.xdist_group("local")]

PARENT = """
import sys, time
from sidestream.local import LocalModel
with LocalModel() as model:
    print(model._child._process.pid, model.url, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def weights() -> Path:
    def only_what_is_cached(_weights: Weights, _folder: Path) -> None:
        raise ConfigError("the model file is not cached (python3 run.py test fetches it)")

    probe = subprocess.run([sys.executable, "-c", "import xllamacpp"], capture_output=True, timeout=60)
    if probe.returncode:
        pytest.skip(f"llama.cpp does not load here: exit code {probe.returncode}")
    try:
        return fetch_weights(download=only_what_is_cached)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model(weights: Path) -> Iterator[LocalModel]:
    with LocalModel() as running:
        yield running


def connect(model: LocalModel) -> http.client.HTTPConnection:
    address = urlsplit(model.url)
    assert address.hostname is not None
    return http.client.HTTPConnection(address.hostname, address.port, timeout=60)


def post(
    connection: http.client.HTTPConnection, path: str, body: dict[str, Any], key: str
) -> http.client.HTTPResponse:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    connection.request("POST", path, json.dumps(body), headers)
    return connection.getresponse()


def events(response: http.client.HTTPResponse) -> list[str]:
    return [line[6:] for line in response.read().decode().splitlines() if line.startswith("data: ")]


def chat(model: LocalModel, prompt: str, tokens: int) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {
        "model": model.model,
        "messages": messages,
        "max_tokens": tokens,
        "stream": True,
        "temperature": 0,
    }


def test_it_is_healthy_as_soon_as_it_is_started(model: LocalModel) -> None:
    """start() returns when requests are answered, not before."""
    with closing(connect(model)) as connection:
        connection.request("GET", "/health")
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, {"status": "ok"})


def test_a_chat_stream_finishes(model: LocalModel) -> None:
    """A chat completion streams text under the model's name, a finish reason, and the end marker."""
    with closing(connect(model)) as connection:
        *chunks, done = events(
            post(connection, "/v1/chat/completions", chat(model, "Say hi.", 64), model.api_key)
        )
    parsed = [json.loads(chunk) for chunk in chunks]
    assert done == "[DONE]"
    assert {chunk["model"] for chunk in parsed} == {model.model}
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in parsed)
    assert parsed[-1]["choices"][0]["finish_reason"] in ("stop", "length")


def test_a_responses_stream_finishes(model: LocalModel) -> None:
    """A Responses stream begins with response.created, carries deltas and ends with response.completed."""
    body = {"model": model.model, "input": "Say hi.", "max_output_tokens": 32, "stream": True}
    with closing(connect(model)) as connection:
        parsed = [json.loads(data) for data in events(post(connection, "/v1/responses", body, model.api_key))]
    assert (parsed[0]["type"], parsed[-1]["type"]) == ("response.created", "response.completed")
    text = "".join(event["delta"] for event in parsed if event["type"] == "response.output_text.delta")
    assert text
    assert text == parsed[-1]["response"]["output"][0]["content"][0]["text"]


@pytest.mark.parametrize("key", ["", "wrong"])
def test_the_key_is_needed(model: LocalModel, key: str) -> None:
    """Without the key, or with another, the answer is 401."""
    with closing(connect(model)) as connection:
        response = post(connection, "/v1/chat/completions", chat(model, "Say hi.", 4), key)
        assert (response.status, "Invalid API Key" in response.read().decode()) == (401, True)


def test_no_web_page_is_let_in(model: LocalModel) -> None:
    """No origin is allowed by CORS, so a browser keeps other pages out."""
    with closing(connect(model)) as connection:
        connection.request("GET", "/health", headers={"Origin": "https://example.com"})
        assert not connection.getresponse().getheader("Access-Control-Allow-Origin")


def test_closing_in_the_middle_of_an_answer(weights: Path) -> None:
    """close() ends child and stream promptly while it is generating, and the cut stream has no end marker."""
    model = LocalModel()
    model.start()
    with closing(connect(model)) as connection:
        response = post(
            connection, "/v1/chat/completions", chat(model, "Tell a long story.", 2_000), model.api_key
        )
        assert response.readline().startswith(b"data: ")
        started = time.monotonic()
        model.close()
        assert time.monotonic() - started < 2.0
        try:
            rest = response.read()
        except (http.client.IncompleteRead, ConnectionError):
            rest = b""
        assert b"[DONE]" not in rest
    assert not model.running


def test_a_killed_parent_leaves_no_server(weights: Path) -> None:
    """When the parent is killed the port closes soon after."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        address = urlsplit(parent.stdout.readline().split()[1])
        parent.kill()
    assert address.hostname is not None
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        with closing(http.client.HTTPConnection(address.hostname, address.port, timeout=5)) as connection:
            try:
                connection.connect()
            except ConnectionRefusedError:
                return
        time.sleep(0.05)
    pytest.fail("the server is still there")


def test_a_damaged_model_file_is_explained(weights: Path, tmp_path: Path) -> None:
    """Half a model file ends in a ConfigError that says what to do."""
    half = tmp_path / "half.gguf"
    with weights.open("rb") as whole:
        half.write_bytes(whole.read(1_000_000))
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        LocalModel(path=half).start()
    assert "delete it" in caught.value.hint
