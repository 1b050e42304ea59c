"""A process of its own that renews a token over and over: `codex_child.py HOME BASE_URL TOKEN_URL COUNT`.

It prints one line per renewal: "new" for another key, else why there is none. COUNT 0 goes on for ever.
"""

import itertools
import sys

from sidestream import Route
from sidestream.routes.codex import CodexSignIn


def main(home: str, base_url: str, token_url: str, count: str) -> None:
    signed = CodexSignIn(home, endpoints=[base_url], token_url=token_url, environ={})
    for _ in range(int(count)) if int(count) else itertools.count():
        route = signed.apply(Route(base_url, "m", "responses"))
        renewed = signed.renew(route, 60)
        is_new = renewed is not None and renewed.api_key != route.api_key
        sys.stdout.write(("new" if is_new else signed.problem) + "\n")
        sys.stdout.flush()


main(*sys.argv[1:])
