"""Names that others chose stay inside the folder they are joined to."""

import pytest

from acr_ray.settings import UserError
from acr_ray.storage.inside import check_name, check_names, inside

OUTSIDE = [
    "..", "../x", "a/../../x", "a/..", "/etc/passwd", "//host/x", "C:/x", "c:x", "C:\\x", "a\\..\\x", "\\\\host\\x",
    "", ".", "./x", "a//b", "a/", "x\0y", "x\ny", "a/\x1b[2J", "a/./b", 7, None,
]  # fmt: skip
FINE = ["x", "a/b.JPEG", "..x", "x..", "a..b/c", ".hidden", "train/n01440764/ILSVRC 1.JPEG", "ä/ö", "ab:c", "...", "~"]


@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
def test_names_that_lead_out_are_refused(name, tmp_path):
    with pytest.raises(UserError, match="the store: names a file .* does not stay inside"):
        check_name(name, "the store")
    with pytest.raises(UserError, match="does not stay inside"):
        inside(tmp_path, name, "the store")
    if isinstance(name, str):
        with pytest.raises(UserError, match="does not stay inside"):
            check_names(["a", name, "b"], "the pack")


def test_others_are_taken(tmp_path):
    for name in FINE:
        assert check_name(name, "") == name and inside(tmp_path, name, "") == tmp_path / name
    check_names(FINE, "")
    check_names([], "")


def test_links_that_lead_out_are_refused(tmp_path):
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir(), outside.mkdir()
    (home / "link").symlink_to(outside)
    (home / "file").symlink_to(outside / "absent")
    for name in ("link/x", "file"):
        with pytest.raises(UserError, match="leads through a link"):
            inside(home, name, "the store")
    (home / "within").mkdir()
    (home / "here").symlink_to(home / "within")
    assert inside(home, "here/x", "") == home / "here" / "x"
