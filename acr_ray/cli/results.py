"""What the commands return: where the results lie, and what their summary says."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from acr_ray.cli.shown import FIGURES, Plot, html_table
from acr_ray.formats.files import CERTIFICATES
from acr_ray.preflight.findings import FAILED, Finding
from acr_ray.settings.errors import UserError
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

    def smoothed(self, sigma: float | None = None, seed: int = 0, model: str | None = None) -> Any:
        """Return the model as a `SmoothedClassifier`; see `acr_ray.cli.smoothed.smoothed_of`."""
        from acr_ray.cli.smoothed import smoothed_of

        return smoothed_of(self.checkpoint, sigma, seed, model)

    def _repr_html_(self) -> str:
        last = self.summary["last_epoch"]
        rows = [("recipe", self.summary["recipe"]), ("epochs", last.get("epoch", -1) + 1)]
        rows += [(key, f"{last[key]:.4f}") for key in ("loss", "accuracy") if isinstance(last.get(key), float)]
        rows += [("checkpoint", self.checkpoint), ("SHA-256", f"{self.summary['model_sha256'][:16]}…")]
        return html_table("training", rows)


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
        return f"{self.folder}/{CERTIFICATES}"

    @property
    def acr(self) -> float:
        """Average certified radius, in input units."""
        return self.summary["acr"]

    def certified_accuracy(self, radius: float) -> float:
        """Return the share of images, in [0, 1], that are right with a certified radius of at least ``radius``.

        Args:
            radius: l2, in input units, >= 0; any, not only those of the summary.

        Raises:
            UserError: the radius is no number >= 0, or the certificates cannot be read.
        """
        from acr_ray.reporting.metrics import certified_accuracy

        if isinstance(radius, bool) or not isinstance(radius, (int, float)) or not 0 <= radius < float("inf"):
            raise UserError(f"radius: {radius!r}; must be a number >= 0")
        return certified_accuracy(self._source, [radius])[0]

    @property
    def p_a(self) -> Any:
        """The estimate of p_A of each image, float64 (images,) in [0, 1]: the share of its draws with its label."""
        return self.to_pandas()["p_a"].to_numpy()

    def to_pandas(self) -> Any:
        """Return the certificates as a `pandas.DataFrame`, a row an image.

        Its columns are those of ``certificates.parquet`` (docs/formats.md), and ``radius`` (certified, input units;
        0 if it abstains), ``correct`` (certified and right) and ``p_a``.
        """
        from io import BytesIO

        import pyarrow.parquet as pq

        from acr_ray.certification.certificates import radii_of
        from acr_ray.formats.states import Outcome

        table = pq.read_table(BytesIO(self.folder.read_bytes(CERTIFICATES)))
        frame = table.to_pandas()
        frame["radius"] = radii_of(table)
        frame["correct"] = (frame["outcome"] == str(Outcome.CERTIFIED)) & (frame["predicted"] == frame["label"])
        frame["p_a"] = frame["count_label"] / frame["n"]
        return frame

    def plot(self, what: str = FIGURES[0]) -> Plot:
        """Draw certified accuracy over the radius, or the distribution of p_A.

        Args:
            what: ``certified_accuracy`` or ``p_a``.
        """
        from acr_ray.reporting import build_report
        from acr_ray.reporting.figures import certified_accuracy_figure, p_a_figure

        if what not in FIGURES:
            raise UserError(f"plot: {what!r}; allowed: {', '.join(FIGURES)}")
        draw = dict(zip(FIGURES, (certified_accuracy_figure, p_a_figure), strict=True))[what]
        return Plot(draw(build_report([self._source])))

    @cached_property
    def _source(self) -> Any:
        from acr_ray.reporting import open_source

        return open_source((self.folder.uri.rstrip("/").rsplit("/", 1)[-1], self.certificates))

    def _repr_html_(self) -> str:
        from acr_ray.smoothing.bounds import round_down

        said = self.summary
        at_least = "≥ " if said.get("acr_is_lower") else ""
        rows = [("ACR", at_least + round_down(said["acr"], 4))]
        rows += [(f"certified accuracy at {r}", f"{100 * a:.1f} %") for r, a in said["certified_accuracy"].items()]
        rows += [("hard (p_A < 0.5)", f"{100 * said['hard_share']:.1f} %"), ("images", said["images"])]
        rows += [(key, said[key]) for key in ("sigma", "n0", "n", "alpha", "arithmetic") if key in said]
        warnings = (said.get("checks") or {}).get("warnings", [])
        rows += [("warning", text) for text in warnings]
        return html_table("certificates", rows, note=str(self.folder))


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
class GateResult(Result):
    """Whether a new model may replace an old one.

    Attributes:
        opened: all requirements hold.
        why: one sentence.
    """

    opened: bool = False
    why: str = ""


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

    def _repr_html_(self) -> str:
        from acr_ray.smoothing.bounds import round_down

        sources = self.summary["sources"]
        radii = list(sources[0]["certified_accuracy"]) if sources else []
        rows = []
        for source in sources:
            shares = (source["certified_accuracy"].get(radius) for radius in radii)
            cells = ["" if share is None else f"{100 * share:.1f} %" for share in shares]
            rows.append((source["name"], round_down(source["acr"], 4), *cells, f"{100 * source['hard_share']:.1f} %"))
        head = ("", "ACR", *(f"r = {radius}" for radius in radii), "p_A < 0.5")
        return html_table("comparison", rows, head, " ".join((*self.verdicts, self.page)))


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
