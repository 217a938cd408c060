"""Is the Ray node in this container healthy? Exit code 0, or 1 and one line that says what is wrong.

Asks the node's own agent, which asks its raylet and, on the head, the GCS. Ray answers this path without a token, also
where everything else needs one. Standard library only: it runs every 15 seconds.
"""

import os
import sys
import urllib.error
import urllib.request


def main() -> int:
    port = os.environ.get("ACR_RAY_AGENT_PORT", "52365")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/healthz", timeout=8) as answer:
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
