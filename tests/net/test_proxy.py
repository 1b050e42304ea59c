"""Through an http proxy named by the environment: CONNECT for https, the whole URL for http."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from sidestream import AsyncClient, Client, ConfigError, Policy, StreamDropped
from sidestream.lab import Lab, script

ANSWER = script.chat_text("through the proxy")


class Proxy:
    """A minimal http proxy on loopback that notes the first line and headers of what it is asked."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.heads: list[str] = []
        self._refuse = refuse
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        self.heads.append(head.split(b"\r\n\r\n")[0].decode())
        method, target, _ = head.split(b" ", 2)
        if self._refuse:
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            client.close()
            return
        place = target if method == b"CONNECT" else target.split(b"/")[2]
        host, port = place.rsplit(b":", 1)
        upstream = socket.create_connection((host.decode(), int(port)))
        if method == b"CONNECT":
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            upstream.sendall(head)
        with client, upstream:
            self._pump(client, upstream)

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket) -> None:
        while True:
            readable, _, _ = select.select([one, other], [], [], 10)
            for sock in readable:
                data = b""
                with contextlib.suppress(OSError):
                    data = sock.recv(65536)
                if not data:
                    return
                (other if sock is one else one).sendall(data)
            if not readable:
                return

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = Proxy()
    monkeypatch.setenv("http_proxy", f"http://user:pa%3Ass@127.0.0.1:{running.port}")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{running.port}")
    yield running
    running.close()


def ask(lab: Lab, kind: str, **options: object) -> str:
    if kind == "sync":
        with Client(lab.url, model="lab-1", wire="chat", **options) as client:
            return client.complete("hi").text

    async def call() -> str:
        async with AsyncClient(lab.url, model="lab-1", wire="chat", **options) as client:
            return (await client.complete("hi")).text

    return asyncio.run(call())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_http_goes_through_the_proxy(proxy: Proxy, kind: str) -> None:
    """Plain http asks the proxy for the whole URL and gives the proxy its own credential."""
    with Lab(ANSWER) as lab:
        assert ask(lab, kind) == "through the proxy"
        assert proxy.heads[0].startswith(f"POST {lab.url}/chat/completions HTTP/1.1")
        assert "Proxy-Authorization: Basic dXNlcjpwYTpzcw==" in proxy.heads[0]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_https_is_tunnelled(proxy: Proxy, kind: str, tmp_path) -> None:
    """https opens a tunnel and the proxy sees neither path nor credential."""
    with Lab(ANSWER, tls=True) as lab:
        (tmp_path / "ca.pem").write_bytes(lab.ca_pem)
        text = ask(lab, kind, cafile=str(tmp_path / "ca.pem"), api_key="canary-key")
        assert text == "through the proxy"
    assert proxy.heads[0].startswith("CONNECT 127.0.0.1:")
    assert "canary" not in proxy.heads[0]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_no_proxy_is_heeded(proxy: Proxy, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host in no_proxy is asked directly."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Lab(ANSWER) as lab:
        assert ask(lab, kind) == "through the proxy"
    assert proxy.heads == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_proxy_that_refuses_is_named(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """A tunnel that is refused ends in a typed error that says so."""
    refusing = Proxy(refuse=True)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{refusing.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    with Lab(ANSWER, tls=True) as lab:
        (tmp_path / "ca.pem").write_bytes(lab.ca_pem)
        with pytest.raises(StreamDropped, match="answered 407"):
            ask(lab, kind, cafile=str(tmp_path / "ca.pem"), policy=Policy(recoveries=0))
    refusing.close()


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1", "http://127.0.0.1:port", "http://"])
def test_an_unusable_proxy_is_a_config_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy variable that makes no sense is reported before anything is sent."""
    monkeypatch.setenv("http_proxy", url)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ConfigError, match="proxy"), Client("http://127.0.0.1:9/v1", model="m") as client:
        client.complete("hi")
