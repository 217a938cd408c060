"""Ask a service for certificates, and ask again where it is worth it: python serve_client.py URL IMAGE.png …

Needs nothing but Python. A token, if the service wants one, comes from the environment: ACR_RAY_SERVE_TOKEN.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request

#: Worth another try: too much to do, a replica that died with the request in hand, none that is up.
AGAIN = (429, 500, 502, 503, 504)


def ask(url: str, question: dict, token: str | None = None, seconds: float = 60.0) -> dict:
    """Post a question, e.g. ``{"image": {"base64": …}, "radius": 0.5}``, to ``URL/v1/certify`` or another path.

    The same image has the same answer whoever gives it, so asking twice does no harm.

    Raises:
        ValueError: the service refuses the question, and would again; says why.
        TimeoutError: no answer in time.
    """
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request, limit, pause = (
        urllib.request.Request(url, json.dumps(question).encode(), headers),
        time.time() + seconds,
        0.1,
    )
    while True:
        try:
            with urllib.request.urlopen(request, timeout=max(1.0, limit - time.time())) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            if error.code not in AGAIN:
                raise ValueError(f"{error.code}: {text}") from None
            pause = max(pause, float(error.headers.get("Retry-After") or 0))
        except (OSError, ValueError) as error:  # the connection broke, or its answer did
            text = str(error)
        if time.time() + pause > limit:
            raise TimeoutError(f"{url}: no answer in {seconds:g} seconds ({text})")
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def main(url: str, *paths: str) -> None:
    for path in paths:
        with open(path, "rb") as file:
            image = {"base64": base64.b64encode(file.read()).decode()}
        found = ask(f"{url}/v1/certify", {"image": image}, os.environ.get("ACR_RAY_SERVE_TOKEN"))
        (result,) = found["results"]
        if result["abstained"]:
            print(f"{path}: abstains after {result['n']} noise draws")
        else:
            print(f"{path}: {result['class_name']}, certified within {result['radius']} ({result['n']} noise draws)")


if __name__ == "__main__":
    main(*sys.argv[1:])
