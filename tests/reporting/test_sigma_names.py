"""The noise level in the names of released files: read where it is clear, asked for where it is not."""

import pytest

from acr_ray.reporting import build_report, open_source
from acr_ray.reporting.opening import default_name
from acr_ray.reporting.sigma_names import sigma_in
from acr_ray.settings.errors import UserError
from tests.reporting.making import GOOD_ROWS, HEADER, tsv


@pytest.mark.parametrize(
    "where, sigma",
    [
        ("noise_0.25.tsv", 0.25), ("noise_0.25", 0.25), ("noise_1.00", 1.0), ("noise_025", 0.25), ("noise_05", 0.5),
        ("noise_1e-1", 0.1), ("noise_25e-2.tsv", 0.25), ("noise_0p25", 0.25), ("noise_1", 1.0), ("noise_2.0", 2.0),
        ("sigma_0.25", 0.25), ("sigma_0.50.tsv", 0.5), ("sigma0.12", 0.12), ("Sigma=1.0", 1.0), ("noise-0.5", 0.5),
        ("cohen_sigma_0.25_test.tsv", 0.25), ("std_0.25", 0.25), ("noise_0.25_sigma_0.25", 0.25), ("σ0.5", 0.5),
        ("resnet110/noise_0.25/test/sigma_0.50", 0.5), ("x/noise_0.25/certs.tsv", 0.25), ("/a/sigma_1/b/c", 1.0),
        ("/pytest/test_noise_0/noise_25/sigma_0.5/x.tsv", 0.5), ("test_noise_0/noise_1.0/noise_33/x", 1.0),
    ],
)  # fmt: skip
def test_common_spellings(where, sigma):
    assert sigma_in(where)[0] == sigma


@pytest.mark.parametrize(
    "where, said",
    [
        ("plain.tsv", "name it as in noise_0.25 or sigma_0.25"),
        ("noise", "give --sigma"),
        ("noise_", "give --sigma"),
        ("noise_25", "noise_25 in its name is no sigma from 0 to 10; give --sigma"),
        ("noise_0", "is no sigma"),
        ("noise_1e300", "is no sigma"),
        ("noise_0.25_sigma_0.5", "says sigma twice, noise_0.25 and sigma_0.5"),
        ("gaussian_0.25.tsv", "neither the file nor its name"),
    ],
)
def test_what_is_not_clear_is_asked_for(where, said):
    with pytest.raises(UserError) as caught:
        sigma_in(where)
    assert said in str(caught.value) and where in str(caught.value)


@pytest.mark.parametrize(
    "where, sigma", [("gaussian_0.25.csv", 0.25), ("g_05.csv", 0.5), ("ours_1e-1", 0.1), ("a_1", 1)]
)
def test_curves_end_with_it(where, sigma):
    assert sigma_in(where, last_number=True)[0] == sigma


def test_what_was_understood_is_said(tmp_path):
    path = tsv(tmp_path / "macer" / "noise_0.25" / "test", [HEADER, *GOOD_ROWS], name="sigma_0.50")
    source = open_source(path)
    assert (source.name, source.sigma) == ("macer", 0.5)
    assert "sigma = 0.5, as its name says (sigma_0.50)" in build_report([source]).rows[0].notes


def test_names_that_say_nothing_but_the_noise_are_not_names():
    assert default_name("a/ours/noise_0.25.tsv") == "ours" and default_name("ours/certificates.parquet") == "ours"
    assert default_name("a/cohen/noise_0.25/test/sigma_0.25") == "cohen" and default_name("noise_0.25") == "noise_0.25"
    assert default_name("a/cohen_0.25.tsv") == "cohen_0.25"
