"""Both kinds of certificates from the same draws: derived right, told apart, and never compared silently."""

from __future__ import annotations

import csv
import io

import numpy as np
import pyarrow as pa
import pytest

from acr_ray.formats.tables import CERTIFICATES as SCHEMA
from acr_ray.formats.tables import CERTIFICATES_VERSION, SUMMARY, described, parquet_bytes
from acr_ray.reporting.kinds import counted_radii
from acr_ray.reporting.opening import open_source
from acr_ray.reporting.page import render_page
from acr_ray.reporting.read_parquet import read_certificates
from acr_ray.reporting.report import Report, build_report
from acr_ray.reporting.summary import summary
from acr_ray.reporting.tables import comparison_table, csv_table, latex_table, markdown_table
from acr_ray.settings import CertifySettings
from acr_ray.settings.errors import UserError
from acr_ray.smoothing.bounds import lower_bound, radius
from acr_ray.smoothing.two_class import two_class_p_lower

SIGMA, N, ALPHA, RADII = 0.5, 1000, 0.001, (0.0, 0.25, 0.5)

# A: certain of a sixth of its images, blind for the rest. B: right on all of them at p_A = 0.48, runner-up at 0.18.
CERTAIN, BLIND, SPREAD = (900, 60, 40), (100, 800, 100), (480, 180, 170, 170)


def table(counts: list[tuple[int, ...]], kind: str = "one-class") -> pa.Table:
    """Certificates of images with label 0; the selected class is the most frequent."""
    rows = []
    for i, drawn in enumerate(counts):
        top = int(np.argmax(drawn))
        second = max(c for k, c in enumerate(drawn) if k != top)
        p = float(
            two_class_p_lower(drawn[top], second, N, ALPHA)
            if kind == "two-class"
            else lower_bound(drawn[top], N, ALPHA)
        )
        p = p if p > 0.5 else 0.0
        rows.append(
            dict.fromkeys(SCHEMA.names)
            | {
                "image": f"i/{i}",
                "idx": i,
                "label": 0,
                "predicted": top,
                "seed": 0,
                "n": N,
                "n0": 100,
                "model_sha256": "m",
            }
            | {"outcome": "certified" if p else "abstained", "count_top": drawn[top], "count_label": drawn[0]}
            | {"sigma": SIGMA, "alpha": ALPHA, "p_lower": p, "count_second": second, "stopping": "fixed", "reason": "n"}
            | {"bound": "two-class/1" if kind == "two-class" else "clopper-pearson", "certificate": kind}
            | {"noise": "pcg64/1", "step": "", "grade": "float", "noise_alpha": 0.0}
        )
    about = {"incomplete": False, "planned_images": len(counts), "n": N}
    return described(pa.Table.from_pylist(rows, schema=SCHEMA), CERTIFICATES_VERSION, {SUMMARY: about})


def source(name: str, counts: list[tuple[int, ...]], kind: str = "one-class"):
    return read_certificates(parquet_bytes(table(counts, kind)), f"{name}.parquet", name)


@pytest.fixture
def report() -> Report:
    return build_report(
        [source("certain", [CERTAIN] * 10 + [BLIND] * 50), source("spread", [SPREAD] * 60)], RADII, baseline="spread"
    )


@pytest.mark.parametrize("own", ["one-class", "two-class"])
def test_both_kinds_follow_from_the_counts_whichever_the_run_certified(own: str) -> None:
    held = source("a", [CERTAIN, SPREAD, BLIND], own)
    one, two = (counted_radii(held, kind) for kind in ("one-class", "two-class"))
    assert one is not None and two is not None
    np.testing.assert_allclose(one[0], [float(radius(lower_bound(900, N, ALPHA), SIGMA)), 0, 0], rtol=1e-12)
    wanted = [float(radius(two_class_p_lower(top, second, N, ALPHA), SIGMA)) for top, second in ((900, 60), (480, 180))]
    np.testing.assert_allclose(two[0], [*wanted, 0.0], rtol=1e-12)
    assert wanted[1] > 0.05
    assert one[1].tolist() == [True, False, False] and two[1].tolist() == [True, True, False]


def test_the_order_of_methods_may_turn_round_and_is_told_everywhere(report: Report) -> None:
    (turned,) = report.turned
    assert (turned.one, turned.other, turned.images) == ("certain", "spread", 60)
    held = summary(report)
    by_name = {s["name"]: s["certificates"] for s in held["sources"]}
    assert by_name["certain"]["one-class"]["acr"] > by_name["spread"]["one-class"]["acr"] == 0.0
    assert by_name["certain"]["two-class"]["acr"] == pytest.approx(turned.two_class[0])
    assert held["order_by_certificate"][0]["ahead_one_class"] == "certain"
    for text in (comparison_table(report), markdown_table(report), render_page(report)):
        assert "the order turns round" in text and "two-class" in text


def test_nothing_turns_where_the_order_is_the_same() -> None:
    alike = build_report([source("a", [CERTAIN, SPREAD]), source("b", [SPREAD, SPREAD])], RADII)
    assert alike.turned == () and summary(alike)["order_by_certificate"] == []


def test_every_table_names_the_kind_and_two_kinds_are_a_warning(report: Report) -> None:
    for text in (comparison_table(report), markdown_table(report), latex_table(report), render_page(report)):
        assert "Certificates: one-class." in text
    rows = csv.DictReader(io.StringIO(csv_table(report)))
    assert {row["certificate"] for row in rows} == {"one-class"}
    mixed = build_report([source("a", [CERTAIN]), source("b", [CERTAIN], "two-class")], RADII)
    assert any("certificate differs: one-class in a; two-class in b" in w for w in mixed.warnings)
    assert "Not a fair comparison: certificate" in mixed.verdicts[0]
    assert "not comparable" in comparison_table(mixed)


def test_a_two_class_source_gives_no_one_class_numbers_at_other_budgets() -> None:
    mixed = build_report([source("two", [CERTAIN], "two-class"), source("one", [CERTAIN])], RADII)
    page = render_page(mixed)
    assert "Not derived, for they are two-class: two." in page
    assert summary(mixed)["sources"][0]["certificate"] == "two-class"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("count_second", 101, "row 0: count_second is 101, must lie in"),
        ("count_second", -1, "row 0: count_second is -1, must lie in"),
        ("p_lower", 0.9, "row 0: p_lower is 0.900000000"),
    ],
)
def test_counts_and_bounds_that_contradict_each_other_are_refused(column: str, value: float, message: str) -> None:
    held = table([CERTAIN], "two-class")
    place = held.column_names.index(column)
    broken = held.set_column(place, held.field(place), pa.array([value], held.field(place).type))
    with pytest.raises(UserError, match=message):
        read_certificates(parquet_bytes(broken), "broken.parquet", "broken")


def test_a_two_class_file_without_the_runner_up_is_refused_and_a_one_class_one_says_one_kind(tmp_path) -> None:
    bare = parquet_bytes(table([CERTAIN], "two-class").drop_columns(["count_second"]))
    with pytest.raises(UserError, match="count_second is missing"):
        read_certificates(bare, "bare.parquet", "bare")
    (tmp_path / "certificates.parquet").write_bytes(parquet_bytes(table([CERTAIN]).drop_columns(["count_second"])))
    old = build_report([open_source(str(tmp_path))], RADII)
    assert [kind.kind for kind in old.rows[0].kinds] == ["one-class"]


def test_certificates_are_read_even_if_the_plan_beside_them_is_of_another_release(tmp_path) -> None:
    """They were complete without the ledger; it only adds the runner-up's counts."""
    (tmp_path / "certificates.parquet").write_bytes(parquet_bytes(table([CERTAIN]).drop_columns(["count_second"])))
    (tmp_path / "ledger").mkdir()
    (tmp_path / "plan.json").write_text('{"schema_version": 1}')
    assert open_source(str(tmp_path)).images == 1


def test_settings_name_the_kind() -> None:
    given = {"sigma": 0.5, "dataset": "digits", "certificate": "both"}
    with pytest.raises(UserError, match="one-class\\|two-class"):
        CertifySettings.build(given, "certify")
