"""What the commands return: where the results lie, and what their summary says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from acr_ray.preflight.findings import FAILED, Finding
from acr_ray.storage import Folder


@dataclass(frozen=True)
class Result:
    """Results in a folder.

    Attributes:
        folder: where they lie.
        summary: what ``summary.json`` there holds.
    """

    folder: Folder
    summary: dict[str, Any]


@dataclass(frozen=True)
class TrainResult(Result):
    """A trained classifier.

    Attributes:
        done_before: an earlier call has computed all of it; this one at most logged it to MLflow.
    """

    done_before: bool = False

    @property
    def checkpoint(self) -> str:
        """The path or URI of the model, as ``certify`` takes it."""
        return f"{self.folder}/checkpoint"


@dataclass(frozen=True)
class ImportResult(Result):
    """Weights of other code as a model of ours."""

    @property
    def checkpoint(self) -> str:
        """The path or URI of the model, as ``certify`` takes it."""
        return f"{self.folder}/checkpoint"


@dataclass(frozen=True)
class ExportResult(Result):
    """A folder ready to upload; ``README.md`` in it is the model card."""


@dataclass(frozen=True)
class CertifyResult(Result):
    """Certificates, in ``certificates.parquet`` and ``certificates.tsv``.

    Attributes:
        done_before: an earlier call has computed all of it; this one at most logged it to MLflow.
    """

    done_before: bool = False

    @property
    def certificates(self) -> str:
        """The path or URI of the table, as ``report`` takes it."""
        return f"{self.folder}/certificates.parquet"


@dataclass(frozen=True)
class TuneResult(Result):
    """A finished search; ``trials.parquet`` lists its trials.

    Attributes:
        done_before: an earlier call has computed all of it; this one at most logged it to MLflow.
    """

    done_before: bool = False

    @property
    def best(self) -> str:
        """The path or URI of the best trial's recipe, as ``train`` takes it."""
        return f"{self.folder}/best.json"


@dataclass(frozen=True)
class AuditResult(Result):
    """Certificates derived anew from ledgers.

    Attributes:
        differing: lines of the ledgers that were drawn again and came out otherwise; 0 if all agree or none was drawn.
    """

    differing: int = 0


@dataclass(frozen=True)
class ReportResult(Result):
    """A comparison of certificates.

    Attributes:
        table: the comparison as text, a row a source.
        verdicts: a sentence for each source against the baseline.
    """

    table: str = ""
    verdicts: tuple[str, ...] = ()

    @property
    def page(self) -> str:
        """The path or URI of the report's page, one file without links to others."""
        return f"{self.folder}/report.html"


@dataclass(frozen=True)
class CompareResult(Result):
    """Recipes over seeds; ``summary["methods"]`` has mean, deviation and every run of each column.

    Attributes:
        table: means and standard deviations as Markdown, a row a recipe.
    """

    table: str = ""


@dataclass(frozen=True)
class DemoResult:
    """The demo's results.

    Attributes:
        folder: with ``train/``, ``certify/`` and ``report/``.
        mlflow_uri: the store that all of it is tracked in.
    """

    folder: Folder
    mlflow_uri: str


@dataclass(frozen=True)
class PackResult:
    """Packed splits of a data set.

    Attributes:
        folder: what ``--data.root`` takes.
        images: images packed now, by split.
        skipped: splits that were packed before.
    """

    folder: Folder
    images: dict[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class DoctorResult:
    """What was found of a cluster, in the order in which it was looked at."""

    findings: tuple[Finding, ...]

    @property
    def failed(self) -> list[str]:
        """The checks that failed, by name."""
        return [finding.check for finding in self.findings if finding.status == FAILED]


@dataclass(frozen=True)
class SubmitResult:
    """A submitted job.

    Attributes:
        exit_code: of ``ray job submit``; 0: the job was taken, and unless it was told not to wait, has succeeded.
    """

    exit_code: int
