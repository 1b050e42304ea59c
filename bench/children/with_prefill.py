"""`with_sidestream.py` where the route says that its endpoint goes on with a last assistant turn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from _child import serve
from with_sidestream import CompleteChat


class Prefill(CompleteChat):
    """`Client.complete` on Chat, continued by prefill."""

    def _options(self, urls: list[str]) -> dict[str, Any]:
        options = super()._options(urls)
        routes = [replace(route, continuation="trailing") for route in options["routes"]]
        return {**options, "routes": routes}


if __name__ == "__main__":
    serve({"complete.chat": Prefill})
