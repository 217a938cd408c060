"""Is the MLflow server in this container healthy? Exit code 0, or 1 and one line that says what is wrong.

Calls the API, by the name its clients use: /health says 200 even where every real call is refused because of its Host
header, or fails because the database is gone.
"""

import os
import sys
import urllib.error
import urllib.request


def main() -> int:
    port = os.environ.get("MLFLOW_PORT", "5000")
    url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1"
    request = urllib.request.Request(url, headers={"Host": os.environ.get("MLFLOW_HEALTH_HOST", "mlflow:5000")})
    try:
        with urllib.request.urlopen(request, timeout=8) as answer:
            print(answer.status)
    except urllib.error.HTTPError as error:
        print(f"unhealthy: {error.code} {' '.join(error.read(300).decode(errors='replace').split())}")
        return 1
    except OSError as error:
        print(f"unhealthy: no MLflow server answers on port {port} ({error})")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
