"""Progress in a notebook: one bar that moves, if IPython's kernel is there; lines everywhere else."""

import sys
from types import SimpleNamespace

import pytest

from acr_ray.cli import notebook
from acr_ray.cli.progress import CertifyLines, EpochLines
from acr_ray.settings import load_recipe
from acr_ray.telemetry.progress import CertificationProgress


class Shown:
    """What IPython's ``display`` returns with an id: a place in the page."""

    def __init__(self, page):
        self.page = page

    def update(self, thing):
        self.page[-1] = thing._repr_html_()


@pytest.fixture
def page(monkeypatch):
    """What a notebook shows, an entry an output; IPython and its kernel are there."""
    shown = []

    def display(thing, display_id=False):
        assert display_id
        shown.append(thing._repr_html_())
        return Shown(shown)

    fake = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=object()), display=SimpleNamespace(display=display)
    )
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setattr(notebook, "SECONDS", 0.0)
    return shown


def progress(done, drawn, rate=100.0):
    return CertificationProgress(done, 4, drawn, 400, rate, 2)


def test_a_certification_is_one_bar_that_moves(page, capsys):
    show = notebook.certify_progress()
    show(progress(0, 0, rate=0.0))
    assert page == []  # nothing is known yet
    show(progress(1, 100))
    assert 'value="0.2500"' in page[0] and "1/4 images" in page[0]
    show(progress(4, 390))
    assert len(page) == 1 and 'value="1.0000"' in page[0] and capsys.readouterr().out == ""


def test_between_two_moves_it_rests_but_for_the_last(page, monkeypatch):
    monkeypatch.setattr(notebook, "SECONDS", 3600.0)
    show = notebook.certify_progress()
    for done, drawn in ((1, 100), (2, 200), (3, 300)):
        show(progress(done, drawn))
    assert "1/4 images" in page[0]
    show(progress(4, 400))
    assert "4/4 images" in page[0]


def test_a_training_is_one_bar(page):
    show = notebook.epoch_progress(load_recipe("digits-gaussian").scaled(4))
    record = {"epoch": 0, "loss": 1.0, "accuracy": 0.5, "remaining": 10, "inputs": 10}
    show(record)
    show(record | {"epoch": 3})
    assert len(page) == 1 and "epoch 4/4" in page[0] and 'value="1.0000"' in page[0]


def test_texts_are_escaped(page):
    notebook.Bar(notebook.displays()).move(0.5, "<script>")
    assert "<script>" not in page[0] and "&lt;script&gt;" in page[0]


@pytest.mark.parametrize("shell", [None, SimpleNamespace()])
def test_in_a_terminal_there_are_lines(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert isinstance(notebook.certify_progress(), CertifyLines)
    monkeypatch.delitem(sys.modules, "IPython")
    assert isinstance(notebook.epoch_progress(load_recipe("digits")), EpochLines)
