"""What to do where MLflow doesn't answer as it should."""

from __future__ import annotations


def advice(uri: str, error: BaseException | str) -> str:
    """What a user can do about what MLflow answered."""
    text = str(error).lower()
    if "invalid host header" in text or "dns rebinding" in text:
        return "start the server with --allowed-hosts and the name in the address, as clients write it"
    if "401" in text or "403" in text or "permission" in text or "unauthorized" in text or "forbidden" in text:
        return (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to an account that "
            "may write"
        )
    if "certificate" in text or "ssl" in text:
        return "set MLFLOW_TRACKING_SERVER_CERT_PATH to the authority's certificate"
    if uri.startswith("http"):
        return "check the address, that the server runs, and that it can be reached from here"
    return "check the address (--tracking-uri, MLFLOW_TRACKING_URI)"
