"""`acr_ray.certify` in this process: objects of a newcomer's file in, the command's own files and counts out."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import acr_ray
import acr_ray.api.given
from acr_ray.cli.commands import certify as command
from acr_ray.cli.session import RunOptions
from acr_ray.models import load_checkpoint
from tests.fakes.jobs import ROOT, environment
from tests.fakes.mine import write_mine
from tests.fakes.models import write_digits_checkpoint

BUDGET = {"sigma": 0.5, "n": 60, "n0": 20}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The newcomer's module; the working directory is its folder."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module(write_mine(tmp_path))


def counts(result):
    return np.stack(result.to_pandas()["counts"]).tolist()


def test_functions_are_the_same_run_as_the_command_line(mine):
    name = mine.__name__
    ours = acr_ray.certify(mine.network, mine.images, out="a", **BUDGET)
    settings = {"dataset": f"{name}:images", **BUDGET}
    theirs = command.run(f"{name}:network", RunOptions("a", tracking=False), settings=settings, on_ray=False)
    assert theirs.done_before and theirs.summary == ours.summary
    assert ours.summary["images"] == 24 and f"{name}:network of sources" in ours.summary["arithmetic"]


def test_objects_have_the_counts_of_functions_and_names_of_their_own(mine):
    name = mine.__name__
    functions = acr_ray.certify(mine.network, mine.images, out="a", **BUDGET)
    objects = acr_ray.certify(mine.network(), mine.images("test"), name=f"{name}:images", out="b", **BUDGET)
    assert counts(functions) == counts(objects)
    assert objects.summary["model_sha256"] == functions.summary["model_sha256"]
    assert "python:Net of sources" in objects.summary["arithmetic"]
    alone = acr_ray.certify(mine.Net(), mine.Pictures("test"), out="c", **BUDGET)
    assert alone.to_pandas()["image"][0] == "python:Pictures/test/000000" and counts(alone) != counts(objects)


def test_arrays_tensors_and_image_sets(mine):
    data = mine.images("test")
    given = [
        (data.images, data.labels),
        (torch.from_numpy(data.images), torch.from_numpy(data.labels)),
        [data.images, data.labels.tolist()],
    ]
    found = [acr_ray.certify(mine.Net(), each, out=f"a{k}", **BUDGET) for k, each in enumerate(given)]
    assert counts(found[0]) == counts(found[1]) == counts(found[2])
    assert found[0].to_pandas()["image"][0] == "python:arrays/test/000000"
    few = acr_ray.certify(mine.Net(), given[0], max_images=5, class_names=list("abcd"), out="few", **BUDGET)
    assert few.summary["images"] == 5
    images = acr_ray.api.given.image_set(data, "pets", None, "test")
    by_set = acr_ray.certify(mine.Net(), images, out="set", **BUDGET)
    assert by_set.to_pandas()["image"][0] == "python:pets/test/000000"


def test_datasets_of_torch_lists_and_a_wrapped_model(mine):
    from torch.utils.data import Subset, TensorDataset

    data = mine.images("test")
    x, y = torch.from_numpy(data.images), torch.from_numpy(data.labels)
    pairs = [(image, int(label)) for image, label in zip(x, y, strict=True)]
    given = {"a": data, "b": TensorDataset(x, y), "c": Subset(data, range(24)), "d": pairs}
    nets = {"a": mine.Net(), "b": torch.nn.DataParallel(mine.Net()), "c": mine.Net, "d": lambda: mine.Net()}
    found = {
        out: acr_ray.certify(nets[out], each, name="pets", out=out, max_images=6, **BUDGET)
        for out, each in given.items()
    }
    assert len({str(counts(result)) for result in found.values()}) == 1
    assert len({result.summary["model_sha256"] for result in found.values()}) == 1


def test_a_checkpoint_is_certified_as_the_command_does(mine, tmp_path):
    checkpoint = write_digits_checkpoint(tmp_path / "model")
    model, card = load_checkpoint(str(checkpoint))
    few = {"n": 60, "n0": 20, "max_images": 6}
    path = acr_ray.certify(checkpoint, out="a", **few)
    pair = acr_ray.certify((model, card), out="b", **few)
    module = acr_ray.certify(model, "digits", sigma=0.25, out="c", **few)
    assert counts(path) == counts(pair) == counts(module)
    assert path.summary["model_sha256"] == pair.summary["model_sha256"] == module.summary["model_sha256"] == card.sha256
    settings = {"max_images": 6, "n": 60, "n0": 20}
    same = command.run(str(checkpoint), RunOptions("a", tracking=False), settings=settings, on_ray=False)
    assert same.done_before


def test_a_run_resumes_and_another_in_its_folder_is_refused(mine, monkeypatch):
    data = mine.images("test")
    whole = acr_ray.certify(mine.Net(), data, out="whole", **BUDGET)
    from acr_ray.certification.sampler import Sampler

    drawn, draw = [], Sampler.draw

    def stopped_soon(self, requests):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(len(requests))
        return draw(self, requests)

    monkeypatch.setattr(Sampler, "draw", stopped_soon)
    with pytest.raises(KeyboardInterrupt):
        acr_ray.certify(mine.Net(), data, out="a", block=10, **BUDGET)
    monkeypatch.undo()
    monkeypatch.chdir(whole.folder.uri + "/..")
    again = acr_ray.certify(mine.Net(), data, out="a", block=10, **BUDGET)
    reference = acr_ray.certify(mine.Net(), data, out="b", block=10, **BUDGET)
    assert 0 < again.summary["evaluations_this_time"] < reference.summary["evaluations"]
    assert counts(again) == counts(reference)
    with pytest.raises(acr_ray.UserError, match="seed was 0, is 1"):
        acr_ray.certify(mine.Net(), data, out="b", block=10, seed=1, **BUDGET)
    # The weights are the same, what is done with them is not.
    with pytest.raises(acr_ray.UserError, match="arithmetic was"):
        acr_ray.certify(mine.Net(scale=2.0), data, out="whole", **BUDGET)


def test_the_users_model_threads_and_random_numbers_are_left_alone(mine):
    net, threads = mine.Net().double().train(), torch.get_num_threads()
    torch.manual_seed(5)
    state, conv = torch.get_rng_state(), torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.benchmark = True
    acr_ray.certify(net, mine.images, out="a", **BUDGET)
    assert torch.backends.cudnn.benchmark and torch.backends.cudnn.conv.fp32_precision == conv
    torch.backends.cudnn.benchmark = False
    assert net.training and net.linear.weight.dtype == torch.float64 and net.linear.weight.requires_grad
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)


def test_what_a_result_says(mine):
    result = acr_ray.certify(mine.network, mine.images, out="a", **BUDGET)
    frame = result.to_pandas()
    right = frame["radius"].where(frame["correct"], 0.0)
    assert result.acr == pytest.approx(right.mean()) and len(result.p_a) == 24
    assert result.certified_accuracy(0.3) == float((right >= 0.3).mean())
    assert result.certified_accuracy(0) == result.summary["certified_accuracy"]["0"]
    assert result.p_a.tolist() == [row.counts[row.label] / 60 for row in frame.itertuples()]
    assert result.plot("p_a")._repr_png_().startswith(b"\x89PNG") and result.plot().figure.axes
    loaded = acr_ray.load("a")
    assert loaded.acr == result.acr and loaded.done_before and loaded.certificates == result.certificates
    for wrong in (-1, float("nan"), "0.5", True):
        with pytest.raises(acr_ray.UserError, match="^radius: "):
            result.certified_accuracy(wrong)
    with pytest.raises(acr_ray.UserError, match="plot: 'x'; allowed: certified_accuracy, p_a"):
        result.plot("x")


def test_the_images_are_not_read_for_constants_that_nobody_needs(mine, monkeypatch):
    from acr_ray.data import image_set

    def read(*_):
        raise AssertionError("all images are read")

    monkeypatch.setattr(image_set, "mean_and_std", read)
    acr_ray.certify(mine.Net(), mine.images, out="a", **BUDGET)
    acr_ray.certify(mine.network, mine.images("test"), out="b", **BUDGET)


def test_a_normalization_that_is_missing_is_named_and_mends_it(mine, capsys):
    class Behind(mine.Net):
        """Trained behind a normalization to [-1, 1]."""

        def forward(self, x):
            right, first = super().forward(x), torch.zeros(len(x), 4)
            first[:, 1] = 1
            return torch.where((x.amin((1, 2, 3)) < -0.5)[:, None], right, first)

    wrong = acr_ray.certify(Behind(), mine.images, out="a", **BUDGET | {"sigma": 0.05})
    (warning,) = wrong.summary["checks"]["warnings"]
    assert "with normalization 0.5,0.5,0.5/0.5,0.5,0.5 it is right on 100 %" in warning
    assert warning in capsys.readouterr().out and "is it the right normalisation" in wrong._repr_html_()
    right = acr_ray.certify(
        Behind(), mine.images, normalization="0.5,0.5,0.5/0.5,0.5,0.5", out="b", **BUDGET | {"sigma": 0.05}
    )
    assert right.summary["checks"]["clean"] == 1 and not right.summary["checks"]["warnings"]


def leaving():
    class Leaving(torch.nn.Module):
        def forward(self, x):
            sys.exit(3)

    return Leaving()


MISTAKES = [
    (lambda m: (m.Net(), m.images), {"out": None}, "out: missing"),
    (lambda m: (m.Net(), None), {}, "dataset: missing"),
    (lambda m: (m.Net(), m.images), {"sigma": None}, "sigma"),
    (lambda m: (m.Net(), m.images), {"sigma": -1}, "sigma = -1"),
    (lambda m: (m.Net(), m.images), {"n": "many"}, "n = "),
    (lambda m: (m.Net(), m.images), {"draws": 3}, "there is no argument draws"),
    (lambda m: (m.Net(), m.images), {"actors": 0}, "actors: 0"),
    (lambda m: (m.Net(), m.images), {"gpus_per_actor": -1}, "gpus_per_actor: -1"),
    (lambda m: (m.Net(), m.images), {"name": "pets"}, "name pets: is of a dataset that is an object"),
    (lambda m: (m.Net(), m.images("test")), {"name": "my pets"}, "name my pets: allowed"),
    (lambda m: (m.Net(), m.images), {"class_names": "abc"}, "class_names: give the name of each logit"),
    (lambda m: (3, m.images), {}, "model: a int; give an nn.Module"),
    (lambda m: (torch.nn.Flatten(), m.images), {}, "has 192 classes"),
    (lambda m: (torch.nn.Linear(3, 2), m.images), {}, "model: Linear fails on images of shape"),
    (lambda m: (torch.nn.Identity(), m.images), {}, "model: Identity gives (2, 3, 8, 8)"),
    (lambda m: (leaving(), m.images), {}, "model: Leaving fails on images of shape (3, 8, 8) (SystemExit: 3)"),
    (lambda m: (lambda: 3, m.images), {}, "model: its function returns a int"),
    (lambda m: (lambda: sys.exit(3), m.images), {}, "model: its function fails (SystemExit: 3)"),
    (lambda m: (m.Net(), 7), {}, "gives a int"),
    (lambda m: (m.Net(), "no-such-set"), {}, "unknown data set; allowed: digits"),
    (lambda m: (m.Net(), (m.images("test").images * 255, m.images("test").labels)), {}, "divide by 255"),
    (lambda m: (m.Net(), (m.images("test").images * 2 - 1, m.images("test").labels)), {}, "leave normalisation out"),
    (lambda m: (m.Net(), (m.images("test").images, [9.5] * 24)), {}, "labels are float64"),
    (lambda m: (m.Net(), m.images), {"normalization": "x"}, "--normalization x: allowed"),
    (lambda m: ("nowhere", m.images), {}, "CHECKPOINT nowhere"),
]


@pytest.mark.parametrize("given, options, said", MISTAKES, ids=[said for *_, said in MISTAKES])
def test_a_mistake_is_one_line_and_makes_nothing(mine, tmp_path, given, options, said):
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(acr_ray.UserError) as caught:
        acr_ray.certify(*given(mine), **{"out": "a", **BUDGET, **options})
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == [
        name for name in before if name != "__pycache__"
    ]


def test_a_notebooks_own_class_without_source(mine, tmp_path):
    """Typed into a prompt: there is no file that its source could be read from."""
    space = {"torch": torch, "nn": torch.nn, "__name__": "__main__"}
    exec(
        "class Typed(nn.Module):\n    def forward(self, x):\n        return x.mean((1, 2)).unflatten(1, (4, 2)).sum(2)",
        space,
    )
    result = acr_ray.certify(space["Typed"](), lambda split: mine.images(split), out="a", **BUDGET)
    assert "python:Typed of sources" in result.summary["arithmetic"]
    assert result.to_pandas()["image"][0].startswith("python:")


def test_a_program_is_tracked_only_if_it_says_where(mine, tmp_path):
    acr_ray.certify(mine.network, mine.images, out="a", **BUDGET)
    assert not (tmp_path / "mlflow.db").exists()
    tracked = acr_ray.certify(mine.network, mine.images, out="b", tracking_uri=f"sqlite:///{tmp_path}/my.db", **BUDGET)
    assert tracked.summary["mlflow_run_id"] and (tmp_path / "my.db").exists()


def test_importing_the_package_loads_nothing_large():
    code = (
        "import sys, acr_ray; print({'torch', 'ray', 'mlflow', 'numpy'} & set(sys.modules), "
        "'certify' in dir(acr_ray)); acr_ray.certify; print({'ray', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set() True\nset()\n"
    with pytest.raises(AttributeError, match="no attribute 'certfy'"):
        acr_ray.certfy  # noqa: B018


def test_without_ray_nothing_of_ray_or_mlflow_is_loaded(mine, tmp_path):
    (tmp_path / "program.py").write_text(
        f"import sys, acr_ray\nfrom {mine.__name__} import images, network\n"
        "acr_ray.certify(network, images, sigma=0.5, n=60, n0=20, out='alone')\n"
        "print({'ray', 'mlflow', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "program.py"], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment()
    )
    assert done.stdout.splitlines()[-1] == "set()"


def test_load_says_what_it_found(mine, tmp_path):
    checkpoint = write_digits_checkpoint(tmp_path / "model")
    smoothed = acr_ray.load(checkpoint, seed=3)
    assert isinstance(smoothed, acr_ray.SmoothedClassifier) and (smoothed.engine.sigma, smoothed.seed) == (0.25, 3)
    with pytest.raises(acr_ray.UserError, match="sigma: -1"):
        acr_ray.load(checkpoint, sigma=-1)
    with pytest.raises(acr_ray.UserError, match="neither results of certify or train nor a checkpoint"):
        acr_ray.load(tmp_path / "nowhere")
    acr_ray.certify(mine.network, mine.images, out="a", **BUDGET)
    (tmp_path / "a" / "summary.json").unlink()
    with pytest.raises(acr_ray.UserError, match="its certify run is not finished"):
        acr_ray.load("a")
    (tmp_path / "b").mkdir()
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    (tmp_path / "b" / "run.json").write_text(json.dumps(record | {"job": "tune"}))
    with pytest.raises(acr_ray.UserError, match="holds a tune run"):
        acr_ray.load("b")


def test_compare_takes_results_and_paths(mine, tmp_path):
    one = acr_ray.certify(mine.network, mine.images, out="a", **BUDGET)
    acr_ray.certify(mine.network, mine.images, out="b", **BUDGET | {"n": 70})
    report = acr_ray.compare({"<b>one</b>".replace("/", "|"): one, "two": "b"}, out="report", radii=[0.0, 0.5])
    assert (tmp_path / "report" / "report.html").is_file() and len(report.verdicts) == 1
    shown = report._repr_html_()
    assert "&lt;b&gt;one" in shown and "<b>" not in shown and "r = 0.5" in shown
    listed = acr_ray.compare([one, tmp_path / "b"], out="report2")
    assert [source["name"] for source in listed.summary["sources"]] == ["a", "b"]
    for wrong, said in (
        ("a", "sources: a str"),
        ({"a=b": one}, "the name 'a=b'"),
        ({"a": 3}, "sources: a int"),
        ({}, "at least one source"),
        ({"a": "nowhere"}, "nowhere"),
    ):
        with pytest.raises(acr_ray.UserError, match=said):
            acr_ray.compare(wrong, out="report3")
    with pytest.raises(acr_ray.UserError, match="there is no argument colour"):
        acr_ray.compare([one], out="report3", colour="red")


def test_train_says_what_it_cannot_take(mine):
    for given, said in (
        ({"recipe": 3}, "recipe: a int"),
        ({"recipe": "no-such"}, "no-such"),
        ({"recipe": "digits", "epochs": 0}, "epochs: 0"),
        ({"recipe": "digits", "workers": "two"}, "workers: 'two'"),
        ({"recipe": "digits", "seed": -1}, "seed: -1"),
        ({"recipe": "digits", "changes": ["training.sigma"]}, "changes: a list"),
        ({"recipe": "digits", "changes": {"training.sgma": 1}}, "training.sgma"),
        ({"recipe": "digits", "dataset": mine.images("train")}, "dataset: a Pictures of this process"),
        ({"recipe": "digits", "model": mine.Net()}, "model: a Net of this process"),
    ):
        with pytest.raises(acr_ray.UserError, match=said.replace("(", r"\(")):
            acr_ray.train(given.pop("recipe"), out="a", **given)
