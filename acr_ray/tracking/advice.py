"""What to do if MLflow doesn't answer as it should."""

from __future__ import annotations


def advice(uri: str, error: BaseException | str, refused: bool = False) -> str:
    """What a user can do about what MLflow answered; ``refused``: it can be reached, and takes other calls."""
    text = str(error).lower()
    if "invalid host header" in text or "dns rebinding" in text:
        return "start the server with --allowed-hosts and the name in the address, as clients write it"
    if "experiment" in text and "deleted" in text:
        return (
            "restore it (mlflow experiments restore -x ID), or log to another: --experiment NAME, or "
            "MLFLOW_EXPERIMENT_NAME"
        )
    gone = "not found" in text or "not exist" in text or "no run with" in text
    if "current state is deleted" in text or ("run" in text and gone and "endpoint" not in text):
        return "it is not there any more: restore it in MLflow, or start the job with another --out for a new run"
    if "schema" in text and "upgrade" in text or "out-of-date" in text:
        return "the store is of another MLflow version: mlflow db upgrade URI, after a copy"
    if uri.startswith("sqlite") and any(word in text for word in ("readonly", "read-only", "unable to open", "locked")):
        return "the SQLite file must lie in a folder that can be written and locked; choose another with --tracking-uri"
    if "401" in text or "403" in text or "permission" in text or "unauthorized" in text or "forbidden" in text:
        return (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to an account that "
            "may write"
        )
    if "certificate" in text or "ssl" in text:
        return "set MLFLOW_TRACKING_SERVER_CERT_PATH to the authority's certificate"
    if refused or "invalid" in text or "must be" in text or "exceed" in text:
        return "MLflow's answer says what it does not take; a name of your own may have to be changed"
    if uri.startswith("http"):
        return "check the address, that the server runs, and that it can be reached from here"
    return "check the address (--tracking-uri, MLFLOW_TRACKING_URI)"
