"""Is the Ray node in this container healthy? Exit code 0, or 1 and one line that says what is wrong.

Asks the node's own agent, which asks its raylet and, on the head, the GCS. The agent wants the cluster's token like
everyone else. Standard library only: it runs every 15 seconds.
"""

import os
import sys
import urllib.error
import urllib.request
from pathlib import Path


def token() -> str:
    """Where Ray itself looks, in its order."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return os.environ["RAY_AUTH_TOKEN"].strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return path.read_text().strip() if path.exists() else ""


def main() -> int:
    port = os.environ.get("ACR_RAY_AGENT_PORT", "52365")
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/healthz")
        request.add_header("Authorization", f"Bearer {token()}")
        with urllib.request.urlopen(request, timeout=8) as answer:
            text = answer.read(1000).decode(errors="replace")
    except urllib.error.HTTPError as error:
        print(f"unhealthy: {error.code} {' '.join(error.read(300).decode(errors='replace').split())}")
        return 1
    except OSError as error:
        print(f"unhealthy: no Ray node answers on port {port} ({error})")
        return 1
    print(" ".join(text.split()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
