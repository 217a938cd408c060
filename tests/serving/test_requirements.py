"""Requirements as users write them."""

import pytest

from acr_ray.serving.requirements import read_requirement, read_requirements
from acr_ray.settings import UserError


@pytest.mark.parametrize(
    ("text", "metric", "radius", "margin"),
    [
        ("certified_accuracy@0.5 >= -0.5pt", "certified_accuracy", 0.5, 0.005),
        ("certified_accuracy@0>=-0.005", "certified_accuracy", 0.0, 0.005),
        ("  certified_accuracy@1.25 >= +2% ", "certified_accuracy", 1.25, -0.02),
        ("hard_share <= +1pt", "hard_share", None, 0.01),
        ("abstained <= -1pt", "abstained", None, -0.01),
        ("worst_class@0.25 >= -3pt", "worst_class", 0.25, 0.03),
    ],
)
def test_a_requirement_is_read(text, metric, radius, margin):
    found = read_requirement(text)
    assert (found.metric, found.radius) == (metric, radius) and found.margin == pytest.approx(margin)
    assert found.by_class == (metric == "worst_class") and found.text == text.strip()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not of the form"),
        ("certified_accuracy@0.5", "not of the form"),
        ("certified_accuracy@0.5 > 1pt", "not of the form"),
        ("certified_accuracy >= 1pt", "needs a radius; write certified_accuracy@RADIUS"),
        ("hard_share@0.5 <= 1pt", "takes no radius"),
        ("hard_share >= 1pt", "less is better; write <="),
        ("certified_accuracy@0.5 <= 1pt", "more is better; write >="),
        ("acr >= -0.01", "acr is no requirement"),
        ("accuracy@0 >= 0pt", "there is no metric accuracy; allowed: certified_accuracy, worst_class"),
        ("certified_accuracy@0.5 >= -120pt", "no difference of shares"),
        ("certified_accuracy@0.5 >= 1.2.3pt", "1.2.3 is not a number"),
        ("certified_accuracy@5000 >= 0pt", "radius 5000; allowed: 0 to 1000"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_can(text, words):
    with pytest.raises(UserError) as error:
        read_requirement(text)
    assert words in str(error.value) and str(error.value).startswith("--require ") and "\n" not in str(error.value)


def test_at_least_one_and_each_once():
    with pytest.raises(UserError, match="--require: missing"):
        read_requirements([])
    with pytest.raises(UserError, match="named twice"):
        read_requirements(["hard_share <= 1pt", "hard_share <= 2pt"])
    assert (
        len(read_requirements(["hard_share <= 1pt", "certified_accuracy@0 >= 0pt", "certified_accuracy@1 >= 0"])) == 3
    )
