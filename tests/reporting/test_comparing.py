"""Pairing, fairness and verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from acr_ray.reporting import build_report, open_source, open_sources
from acr_ray.reporting.pairing import BIN_NAMES, acr_by_bin, bin_of, images_by_bin, pair
from acr_ray.reporting.summary import summary
from acr_ray.settings.errors import UserError
from tests.reporting.making import GOOD_ROWS, HEADER, certificates, tsv

BEFORE = [400, 560, 700, 850, 950, 1000]
AFTER = [300, 560, 690, 900, 990, 1000]


def run(tmp_path, name, counts, **options):
    return f"{name}=" + certificates(tmp_path / name / "certificates.parquet", counts, **options)


def compared(tmp_path, before=BEFORE, after=AFTER, **options):
    sources = open_sources([run(tmp_path, "base", before, **options), run(tmp_path, "new", after, **options)])
    report = build_report(sources)
    return report, report.comparisons[0]


def test_gain_is_split_without_rest(tmp_path):
    report, c = compared(tmp_path)
    base, new = (s.rows.counted_radius for s in report.sources)
    assert c.gain == pytest.approx((new - base).mean())
    assert sum(b.gain for b in c.bins) == pytest.approx(c.gain)
    assert [b.images for b in c.bins] == [1, 1, 0, 1, 1, 1, 1] and len(BIN_NAMES) == 7
    was_certified = base > 0
    assert c.gain_from_certified == pytest.approx((new - base)[was_certified].sum() / 6)
    assert c.gain_from_easy == pytest.approx((new - base)[[4, 5]].sum() / 6)
    assert (c.worse_count, c.worse[0].tolist(), c.worse[1].tolist()) == (1, [2], [2])
    assert (c.hard_before, c.hard_after) == (pytest.approx(1 / 6), pytest.approx(1 / 6))


def test_newly_certified_and_lost_are_counted_in_their_bins(tmp_path):
    _, c = compared(tmp_path, before=[400, 560, 700], after=[700, 480, 700])
    assert [(b.gained, b.lost) for b in c.bins] == [(1, 0), (0, 1)] + [(0, 0)] * 5


def test_images_are_paired_whatever_their_order(tmp_path):
    a = open_source(run(tmp_path, "a", [900, 800, 700], idx=[5, 1, 9], labels=[0, 1, 2]))
    b = open_source(run(tmp_path, "b", [100, 200, 300, 400], idx=[9, 7, 5, 1], labels=[2, 0, 0, 1]))
    pairing = pair(a.rows, b.rows)
    assert {(int(a.rows.idx[i]), int(b.rows.idx[j])) for i, j in zip(pairing.a, pairing.b, strict=True)} == {
        (5, 5),
        (1, 1),
        (9, 9),
    }
    assert pairing.labels_differ == 0
    back = pair(b.rows, a.rows)
    assert sorted(zip(back.b, back.a, strict=True)) == sorted(zip(pairing.a, pairing.b, strict=True))


def test_names_pair_images_where_indices_do_not_fit(tmp_path):
    names = {"image": ["x", "y", "z"]}
    moved = {"image": ["z", "w", "x"]}
    a = open_source(run(tmp_path, "a", [900, 800, 700], labels=[0, 1, 2], change=names))
    b = open_source(run(tmp_path, "b", [100, 200, 300], labels=[2, 0, 0], change=moved))
    pairing = pair(a.rows, b.rows)
    assert (pairing.a.tolist(), pairing.b.tolist(), pairing.labels_differ) == ([0, 2], [2, 0], 0)


def test_a_run_and_a_file_of_the_field_are_paired_by_index(tmp_path):
    ours = open_source(run(tmp_path, "a", [900, 800, 100, 700], labels=[3, 8, 8, 0]))
    field = open_source(tsv(tmp_path, (HEADER, *GOOD_ROWS)))
    assert pair(ours.rows, field.rows).a.tolist() == [0, 1, 2, 3]
    assert pair(field.rows, ours.rows).labels_differ == 0


def test_bins_close_on_the_left_and_hold_one_and_the_unknown():
    p = np.array([np.nan, 0.0, 0.4999, 0.5, 0.6, 0.89, 0.9, 0.99, 1.0])
    assert bin_of(p).tolist() == [0, 0, 0, 1, 2, 4, 5, 6, 6]


def test_acr_by_bin_sums_to_acr(tmp_path):
    source = open_source(run(tmp_path, "a", BEFORE))
    assert sum(acr_by_bin(source)) == pytest.approx(source.rows.counted_radius.mean())
    assert acr_by_bin(source)[0] == 0
    assert images_by_bin(source) == pytest.approx([1 / 6, 1 / 6, 0, 1 / 6, 1 / 6, 1 / 6, 1 / 6])


def test_verdict_says_that_a_gain_comes_from_easy_images(tmp_path):
    rng = np.random.default_rng(0)
    easy, hard = np.full(300, 950), np.full(100, 520)
    before = np.concatenate([easy, hard]) + rng.integers(0, 5, 400)
    after = np.concatenate([easy + 45, hard - 60]) + rng.integers(0, 4, 400)
    report, c = compared(tmp_path, before, after)
    assert c.interval[0] > 0
    said = report.verdicts[0]
    assert said.startswith("ACR rises 51.4 % over base (0.2734 to 0.4138; 95 % interval of the difference +0.1")
    assert "All of it comes from images that base already certified" in said
    assert "images already at p_A >= 0.9 make 100 % of it" in said
    assert "Hard images (p_A < 0.5): 25.0 points more (0.0 % before, 25.0 % now; 95 % interval of the" in said


def test_verdict_does_not_tell_noise_apart(tmp_path):
    report, _ = compared(tmp_path, BEFORE, BEFORE[:-1] + [999])
    assert report.verdicts[0].startswith("ACR: no difference to base that 6 images could show (")


def test_verdict_has_a_sentence_each_for_acr_hard_images_and_classes(tmp_path):
    """One class is given up for wider radii elsewhere: ACR does not show it, the two other sentences do."""
    labels = np.arange(300) % 3
    before = np.full(300, 900)
    after = np.where(labels == 2, np.arange(300) % 7 + 300, np.where(np.arange(300) % 2, 999, 900))
    report, c = compared(tmp_path, before, after, labels=labels)
    low, high = c.interval
    assert low < 0 < high and c.hard_interval[0] > 0.2
    # What is shown comes first.
    hard, classes, acr = [s + "." for s in report.verdicts[0].removesuffix(".").split(". ")]
    assert acr.startswith("ACR: no difference to base that 300 images could show (") and " interval of" in acr
    assert hard.startswith("Hard images (p_A < 0.5): 33.3 points more (0.0 % before, 33.3 % now; 95 % interval of")
    assert classes == (
        "new gives up class 2: 100 % of its images are hard, 0 % before (100 % of the growth in hard images falls on"
        " it); classes with most images hard: 0 before, 1 now, of 3."
    )
    assert "told apart" not in report.verdicts[0]
    told = summary(report)["comparisons"][0]
    assert {"images": 100, "before": 0.0, "after": 1.0}.items() <= told["hard_by_class"]["2"].items()
    assert told["hard_change_interval"] == list(c.hard_interval)


def test_unfair_settings_are_said_and_acr_is_given_at_a_common_budget(tmp_path):
    sources = open_sources([run(tmp_path, "a", BEFORE), run(tmp_path, "b", [c * 10 for c in AFTER], n=10_000)])
    report = build_report(sources)
    assert report.warnings == ["N differs: 1000 in a; 10000 in b"]
    assert report.common_budget == (1000, 0.001)
    assert report.rows[0].common_acr == pytest.approx(report.rows[0].acr)
    assert report.rows[1].common_acr < report.rows[1].acr
    assert report.verdicts[0].startswith("Not a fair comparison: N differs.")
    assert report.comparisons[0].common_acr == pytest.approx(tuple(row.common_acr for row in report.rows))
    assert "At the same budget (N = 1000, alpha = 0.001): " in report.verdicts[0]


def test_other_sigmas_are_compared_with_their_own_first(tmp_path):
    sources = [run(tmp_path / s, n, BEFORE, sigma=float(s)) for s in ("0.25", "0.5") for n in ("base", "new")]
    report = build_report(open_sources(sources))
    assert [row.name for row in report.rows] == ["base", "new", "base (sigma 0.5)", "new (sigma 0.5)"]
    assert [(c.baseline, c.name) for c in report.comparisons] == [
        ("base", "new"),
        ("base (sigma 0.5)", "new (sigma 0.5)"),
    ]
    assert any(w.startswith("sigma differs: 0.25 in base, new; 0.5 in") for w in report.warnings)


def test_a_partial_run_says_incomplete(tmp_path):
    partial = run(tmp_path, "a", BEFORE, summary={"incomplete": True, "planned_images": 10})
    report = build_report(open_sources([partial]))
    assert report.rows[0].shown_name == "a (incomplete: 6 of 10)"
    assert report.constant.shown_name == "constant class (incomplete: 6 of 10)"
    assert report.warnings == ["a: incomplete: 6 of 10 images; its numbers are not the full run's"]
    unknown = run(tmp_path, "b", BEFORE, summary={"incomplete": True})
    assert open_source(unknown).shown_name == "b (incomplete: 6 of more)"
    contradiction = run(tmp_path, "c", BEFORE, summary={"incomplete": True, "planned_images": 6})
    assert open_source(contradiction).incomplete == "incomplete: 6 of more"
    assert open_source(run(tmp_path, "d", BEFORE, summary={"planned_images": 6})).incomplete == ""


def test_radii_above_the_ceiling_are_said_with_what_would_explain_them(tmp_path):
    path = tsv(tmp_path, [HEADER, "0\t1\t1\t0.978\t1\t0:0", "1\t1\t1\t0.953\t1\t0:0"])
    report = build_report([open_source(path)])
    assert "1 stored radii exceed 0.9528" in report.warnings[0]
    assert "N = 100000 with alpha = 0.01 would explain it" in report.warnings[0]
    fine = tsv(tmp_path / "fine", [HEADER, "0\t1\t1\t0.953\t1\t0:0"])
    assert build_report([open_source(fine)]).warnings == []


def test_baseline_can_be_chosen(tmp_path):
    sources = open_sources([run(tmp_path, n, BEFORE) for n in ("a", "b", "c")])
    assert [c.name for c in build_report(sources, baseline="b").comparisons] == ["a", "c"]
    with pytest.raises(UserError, match="--baseline z"):
        build_report(sources, baseline="z")
    with pytest.raises(UserError, match="--radii"):
        build_report(sources, radii=[-1.0])
