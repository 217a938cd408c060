"""The comparison over seeds, with training and certification replaced by files of known numbers."""

import json

import pytest

from acr_ray.cli.commands import compare
from acr_ray.cli.results import CertifyResult, TrainResult
from acr_ray.cli.session import RunOptions
from acr_ray.settings import RECIPES, UserError


@pytest.fixture
def calls(monkeypatch):
    made = []

    def train(recipe, options, *, workers, seed, policy):
        made.append(("train", recipe.name, options))
        record = {"epoch": 0, "forward_passes": 1_000_000, "backward_passes": 500_000}
        out = options.folder().make_writable()
        out.write_text("metrics.jsonl", 2 * (json.dumps(record) + "\n"))
        return TrainResult(out, {})

    def certify(checkpoint, options, *, settings, actors):
        made.append(("certify", checkpoint, options))
        acr = 0.5 + 0.1 * settings["seed"]
        shares = {"0": 0.9, "0.25": 0.7, "0.5": 0.5, "0.75": 0.3, "1": 0.1}
        summary = {"schema_version": 1, "acr": acr, "certified_accuracy": shares, "hard_share": 0.08}
        summary |= {"images": 500, "evaluations": 1, "model_sha256": "0" * 64}
        return CertifyResult(options.folder().make_writable(), summary)

    monkeypatch.setattr(compare.train, "run", train)
    monkeypatch.setattr(compare.certify, "run", certify)
    return made


def test_mean_deviation_and_every_run(calls, tmp_path):
    compare.main(["--out", str(tmp_path), "--methods", "digits-gaussian,digits", "--n", "500", "--no-tracking"])
    assert [call[:2] for call in calls[:4]] == [
        ("train", "digits-gaussian"),
        ("certify", f"{tmp_path}/train/digits-gaussian-0"),
        ("train", "digits"),
        ("certify", f"{tmp_path}/train/digits-0"),
    ]
    assert len(calls) == 12 and not any(options.tracking for *_, options in calls)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["settings"] == {"n": 500, "seeds": 3, "workers": 1}
    acr = summary["methods"]["digits"]["ACR"]
    assert acr == {"mean": pytest.approx(0.6), "sd": pytest.approx(0.1), "runs": pytest.approx([0.5, 0.6, 0.7])}
    table = (tmp_path / "table.md").read_text()
    row = "| digits | 0.6000 ± 0.1000 | 90.0 ± 0.0 | 70.0 ± 0.0 | 50.0 ± 0.0 | 30.0 ± 0.0 | 10.0 ± 0.0 | 8.0 ± 0.0 |"
    assert f"{row} 3.00 ± 0.00 |" in table


def test_one_seed_has_no_deviation_and_other_draws_keep_the_models(calls, tmp_path):
    for n in ("500", "600"):
        compare.main(["--out", str(tmp_path), "--methods", "digits", "--seeds", "1", "--n", n])
    assert "±" not in (tmp_path / "table.md").read_text()
    trained, certified = ({options.out for name, _, options in calls if name == job} for job in ("train", "certify"))
    assert len(trained) == 1 and len(certified) == 2


def test_by_default_all_methods_on_digits():
    assert set(compare.METHODS) == {name for name in RECIPES if name.startswith("digits")}
    assert compare.METHODS[0] == "digits-gaussian"


def test_no_method_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="--methods: none given"):
        compare.main(["--out", str(tmp_path), "--methods", " , "])


def test_a_file_that_names_an_address_is_no_method(calls, tmp_path):
    (tmp_path / "theirs.json").write_text(
        '{"name": "theirs", "data": {"dataset": "cifar10", "root": "s3://x/y"}, '
        '"model": {"architecture": "cifar_resnet20"}, "training": {"sigma": 0.5, "epochs": 2}}'
    )
    with pytest.raises(UserError, match="data.root = s3://x/y: an address in a file is not opened"):
        compare.main(["--out", str(tmp_path / "out"), "--methods", str(tmp_path / "theirs.json")])
    assert not calls and not (tmp_path / "out").exists()


def test_the_table_is_what_a_program_gets(calls, tmp_path):
    result = compare.run(RunOptions(str(tmp_path), tracking=False), methods=["digits"], seeds=2, n=500)
    assert result.table == (tmp_path / "table.md").read_text() and str(result.folder) == str(tmp_path)
    assert result.summary == json.loads((tmp_path / "summary.json").read_text())
