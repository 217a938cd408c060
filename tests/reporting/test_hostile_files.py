"""Each bad file is read right, or refused with one line that names file and line."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from acr_ray.reporting import Assumptions, build_report, open_source, open_sources
from acr_ray.reporting.metrics import acr
from acr_ray.settings.errors import UserError
from tests.reporting.making import GOOD_ROWS, HEADER, certificates, tsv

GOOD = (HEADER, *GOOD_ROWS)
EXPECTED_ACR = (0.529 + 0.953) / 4


def changed(line: int, text: str) -> list[str]:
    lines = list(GOOD)
    lines[line - 1] = text
    return lines


@pytest.mark.parametrize(
    ("lines", "line", "said"),
    [
        ((HEADER,), 1, "a header and no certificates"),
        (("idx\tlabel\tradius", *GOOD_ROWS), 1, "predict, correct is missing"),
        (changed(3, "1\t8\t8\tnan\t1\t0:00:08"), 3, "radius is nan"),
        (changed(3, "1\t8\t8\tinf\t1\t0:00:08"), 3, "radius is inf"),
        (changed(3, "1\t8\t8\t-0.1\t1\t0:00:08"), 3, "radius is -0.1"),
        (changed(3, "1\t8\t8\tbroken\t1\t0:00:08"), 3, "'broken', which is not a number"),
        (changed(3, "1\t8.5\t8\t0.5\t1\t0:00:08"), 3, "label is '8.5'"),
        (changed(3, "\t8\t8\t0.5\t1\t0:00:08"), 3, "idx is ''"),
        (changed(3, "0\t8\t8\t0.5\t1\t0:00:08"), 3, "idx 0 was already on line 2"),
        (changed(3, "1\t8\t7\t0.5\t1\t0:00:08"), 3, "predict and label say otherwise"),
        (changed(3, "1\t8\t8\t0.5\t2\t0:00:08"), 3, "correct is 2"),
        (changed(3, "1\t8\t-2\t0.5\t0\t0:00:08"), 3, "predict is -2"),
        (changed(3, "1\t8\t-1\t0.5\t0\t0:00:08"), 3, "but the classifier abstained"),
        (changed(3, "-1\t8\t8\t0.5\t1\t0:00:08"), 3, "idx is -1"),
        (changed(3, "1\t8\t8"), 3, "3 columns where the header has 6"),
        (changed(3, ""), 3, "1 columns"),
        (changed(3, HEADER), 3, "not a number"),
    ],
)
def test_refused_with_file_and_line(tmp_path, lines, line, said):
    path = tsv(tmp_path, lines)
    with pytest.raises(UserError) as caught:
        open_source(path)
    assert f"{path} line {line}:" in str(caught.value) and said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", range(1, len(GOOD_ROWS[-1])))
def test_a_file_cut_anywhere_in_its_last_row_is_refused_or_whole(tmp_path, cut):
    path = tsv(tmp_path, [*GOOD[:-1], GOOD_ROWS[-1][:cut]], last="")
    try:
        source = open_source(path)
    except UserError as error:
        assert f"{path} line 5:" in str(error)
    else:  # only the time may be cut
        assert GOOD_ROWS[-1][:cut].startswith("3\t0\t5\t0.412\t0\t0") and acr(source) == pytest.approx(EXPECTED_ACR)


@pytest.mark.parametrize(
    ("end", "last", "prefix"),
    [("\r\n", "\r\n", ""), ("\n", "", ""), ("\n", "\n\n\n", ""), ("\n", "\n", "\ufeff"), ("\r\n", "", "\ufeff")],
)
def test_read_right_whatever_the_line_ends(tmp_path, end, last, prefix):
    lines = (prefix + GOOD[0], *GOOD[1:])
    source = open_source(tsv(tmp_path, lines, end=end, last=last))
    assert acr(source) == pytest.approx(EXPECTED_ACR) and source.images == 4


def test_columns_are_found_by_name_and_order_of_rows_does_not_matter(tmp_path):
    swapped = ["label\tidx\tcorrect\tradius\tpredict"]
    swapped += ["\t".join(np.array(row.split("\t"))[[1, 0, 4, 3, 2]]) for row in reversed(GOOD_ROWS)]
    assert acr(open_source(tsv(tmp_path, swapped))) == pytest.approx(EXPECTED_ACR)
    with pytest.raises(UserError, match="line 5: the file ends without a line end"):
        open_source(tsv(tmp_path, swapped, last=""))


def test_sigma_comes_from_the_name_or_the_option_or_is_asked_for(tmp_path):
    assert open_source(tsv(tmp_path, GOOD, name="noise_1.00")).sigma == 1.0
    unnamed = tsv(tmp_path, GOOD, name="results.tsv")
    with pytest.raises(UserError, match="give --sigma"):
        open_source(unnamed)
    chosen = Assumptions(sigma={"a": 0.5, "": 0.25}, n={"": 10_000})
    sources = open_sources([f"a={unnamed}", f"b={unnamed}"], chosen)
    assert [(s.sigma, s.n, s.alpha) for s in sources] == [(0.5, 10_000, 0.001), (0.25, 10_000, 0.001)]
    with pytest.raises(UserError, match="--alpha 2"):
        open_source(unnamed, Assumptions(sigma={"": 1.0}, alpha={"": 2.0}))


def test_a_run_s_tsv_takes_its_settings_from_the_run_s_summary(tmp_path):
    path = tsv(tmp_path, GOOD, name="certificates.tsv")
    (tmp_path / "summary.json").write_text('{"sigma": 0.5, "n": 1000, "alpha": 0.01}')
    for place in (path, str(tmp_path)):
        source = open_source(place)
        assert (source.sigma, source.n, source.alpha, source.assumed) == (0.5, 1000, 0.01, ())
    assert open_source(path, Assumptions(alpha={"": 0.001})).alpha == 0.001


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"hello\nworld\n", b"<html></html>"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "noise_0.25.tsv"
    path.write_bytes(content)
    with pytest.raises(UserError, match="line 1"):
        open_source(str(path))


def test_missing_and_empty_places_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        open_source(str(tmp_path / "absent"))
    with pytest.raises(UserError, match="holds no certificates.parquet"):
        open_source(str(tmp_path))
    with pytest.raises(UserError, match="MLflow runs cannot be opened"):
        open_source("runs:/abc")


def test_disagreeing_labels_are_said_and_never_paired(tmp_path):
    other = [HEADER, *(row.replace("\t8\t8\t", "\t7\t7\t") for row in GOOD_ROWS)]
    report = build_report(
        open_sources([tsv(tmp_path / "a", GOOD), tsv(tmp_path / "b", other)]),
    )
    assert report.comparisons == ()
    for row in report.rows:
        assert any("labels disagree" in w and "1 of 4 shared indices (first: idx 1)" in w for w in row.warnings)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x\ty\n0.5\t0.9\n0.4\t0.8\n", 3),
        ("x,y\n0.5,0.8\n0.6,0.9\n", 3),
        ("x,y\n0.5,nan\n", 2),
        ("x,y\n0.5,1.5\n", 2),
        ("x,y\n0.5\n", 2),
        ("x,y\n", 1),
    ],
)
def test_bad_curves_are_refused(tmp_path, text, line):
    path = tmp_path / "a_0.25.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=f"line {line}:"):
        open_source(str(path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count_label": [990, 500, 2000]}, "row 2: count_label is 2000, must lie in"),
        ({"sigma": [0.25, 0.5, 0.25]}, "row 1: sigma is 0.5 but 0.25 in row 0"),
        ({"alpha": [1.5] * 3}, "alpha is 1.5"),
        ({"alpha": [0.001, float("nan"), 0.001]}, "row 1: alpha is nan"),
        ({"image": ["a", "b", "a"]}, "image a appears more than once"),
        ({"idx": [0, 1, 1]}, "row 2: idx 1 was already in row 1"),
        ({"outcome": ["certified", "abstained", "maybe"]}, "row 2: outcome is maybe"),
        ({"bound": ["clopper-pearson"] * 2 + ["hoeffding"]}, "bounds of 2 kinds (clopper-pearson, hoeffding)"),
        ({"bound": ["hoeffding"] * 3}, "bound is hoeffding; this release reads clopper-pearson,"),
        ({"outcome": ["certified"] * 3}, "row 1: outcome is certified, but 500 of 1000 certify no radius"),
        ({"count_top": [980, 500, 800]}, "row 0: predicted is the label, but their counts differ"),
        ({"label": [0, None, 2]}, "row 1: label is empty"),
    ],
)
def test_broken_certificates_are_refused(tmp_path, change, said):
    path = certificates(tmp_path / "certificates.parquet", [990, 500, 800], change=change)
    with pytest.raises(UserError) as caught:
        open_source(path)
    assert said in str(caught.value) and path in str(caught.value)


def test_truncated_parquet_and_missing_columns_are_refused(tmp_path):
    path = tmp_path / "certificates.parquet"
    certificates(path, [990, 500, 800])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="cut off"):
        open_source(str(path))
    path.write_bytes(whole)
    pq.write_table(pq.read_table(path).drop_columns(["count_top"]), path)
    with pytest.raises(UserError, match="column count_top is missing"):
        open_source(str(path))


def test_no_source_at_all_is_refused():
    with pytest.raises(UserError, match="no SOURCE"):
        open_sources([])
