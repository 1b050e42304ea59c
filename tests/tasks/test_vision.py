"""What an image shows: how it gets to the model, and which models are asked."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from ways import at, both, do

from sidestream import BadRequest, NoRoute, Route, UsageError
from sidestream.lab import Lab, script
from sidestream.routes.config import TaskConfig
from sidestream.tasks import adescribe, describe
from sidestream.tasks.vision import LARGEST_IMAGE, image_url

PAIR = (describe, adescribe)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
DATA_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


@both
def test_an_image_is_described(way: str, tmp_path: Path) -> None:
    """Bytes and files travel inside the request, an address as it is; the question comes along."""
    path = tmp_path / "dot.png"
    path.write_bytes(PNG)
    with Lab(script.say(" One dot. ")) as lab:
        for image in (PNG, path, str(path), DATA_URL, "https://pictures.test/dot.png"):
            assert do(way, PAIR, image, "How many dots?", client=at(lab)) == "One dot."
        sent = [request.json()["messages"][-1]["content"] for request in lab.requests]
    assert [parts[0]["text"] for parts in sent] == ["How many dots?"] * 5
    urls = [parts[1]["image_url"]["url"] for parts in sent]
    assert urls == [DATA_URL] * 4 + ["https://pictures.test/dot.png"]


@both
@pytest.mark.parametrize("wire", ["chat", "responses", "messages"])
def test_every_wire_gets_the_image_in_its_form(way: str, wire: str) -> None:
    """The image reaches the model on each of the three wires."""
    with Lab(script.say("One dot.")) as lab:
        assert do(way, PAIR, PNG, client=at(lab, wire=wire)) == "One dot."
        body = lab.requests[0].json()
    part = (body["input"] if wire == "responses" else body["messages"])[-1]["content"][1]
    assert {
        "chat": {"type": "image_url", "image_url": {"url": DATA_URL}},
        "responses": {"type": "input_image", "image_url": DATA_URL},
        "messages": {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": DATA_URL.partition(",")[2]},
        },
    }[wire] == part


@both
def test_only_models_that_can_see_are_asked(way: str) -> None:
    """A route whose model reads no images is left out; one of which nobody knows is asked."""
    with Lab(script.say("A blind guess.")) as blind, Lab(script.say("One dot.")) as seeing:
        routes = [
            Route(blind.url, "blind", "chat", vision=False),
            Route(seeing.url, "perhaps", "chat"),
        ]
        assert do(way, PAIR, PNG, client={"routes": routes}) == "One dot."
        with pytest.raises(NoRoute, match="reads no images"):
            do(way, PAIR, PNG, client={"routes": routes[:1]})
        assert (len(blind.requests), len(seeing.requests)) == (0, 1)


@both
@pytest.mark.parametrize(
    "words",
    [
        "Invalid content type. image_url is only supported by certain models.",
        "This model does not support image inputs",
        "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj",
        "Failed to deserialize the JSON body: messages[1]: unknown variant `image_url`, expected `text`",
        "No endpoints found that support image input",
    ],
)
def test_a_model_that_turns_out_to_be_blind_is_passed_over(way: str, words: str) -> None:
    """When a model says that it reads no images, the next route is asked instead."""
    with Lab(script.problem(400, words)) as blind, Lab(script.say("One dot.")) as seeing:
        routes = [Route(blind.url, "perhaps", "chat"), Route(seeing.url, "seeing", "chat", vision=True)]
        assert do(way, PAIR, PNG, client={"routes": routes}) == "One dot."
        assert (len(blind.requests), len(seeing.requests)) == (1, 1)


@both
def test_a_broken_image_is_not_taken_elsewhere(way: str) -> None:
    """An image that a model cannot decode is the request's fault: no other route is asked."""
    with Lab(script.problem(400, "Could not process image")) as lab, Lab() as other:
        routes = [Route(lab.url, "seeing", "chat"), Route(other.url, "other", "chat")]
        with pytest.raises(BadRequest):
            do(way, PAIR, PNG, client={"routes": routes})
        assert not other.requests


@both
def test_the_configuration_of_the_task_counts(way: str) -> None:
    """Instructions and language of the task are used."""
    said = TaskConfig(instructions="Count.", language="German")
    with Lab(script.say("1")) as lab:
        do(way, PAIR, PNG, client=at(lab, tasks={"dots": said}), task="dots")
        system, user = lab.requests[0].json()["messages"]
    assert system["content"] == "Count."
    assert user["content"][0]["text"].endswith("Answer in German.")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (PNG[:16], "image/png"),
        (b"\xff\xd8\xff\xe0JFIF", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
    ],
)
def test_the_kind_is_read_from_the_bytes(head: bytes, kind: str) -> None:
    """What an image is does not depend on its name."""
    assert image_url(head).startswith(f"data:{kind};base64,")


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"%PDF-1.7",
        PNG + bytes(LARGEST_IMAGE),
        f"data:image/png;base64,{'A' * (LARGEST_IMAGE * 2)}",
        "data:text/html,x",
        "nowhere.png",
        "nul\0.png",
        "/",
        "~nobody-of-that-name/x.png",
    ],
    ids=lambda image: repr(image[:12]),
)
def test_what_is_no_image_is_the_callers_mistake(image: Any) -> None:
    """Nothing is sent that cannot be an image, or is larger than the limit."""
    with pytest.raises(UsageError):
        image_url(image)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    """A file that would keep the caller waiting is refused."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="not a file"):
        image_url(tmp_path / "pipe")


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    """A file above the limit is refused, whatever its size."""
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.write(PNG)
        file.truncate(LARGEST_IMAGE * 50)  # sparse
    with pytest.raises(UsageError, match="larger than 20 MiB"):
        image_url(path)
