"""A service of two-class certificates: the engine's own draws judged by the rule, and no waiting for the rule."""

import asyncio
import json

import numpy as np
import pytest
import torch

from acr_ray.certification.procedure import sparse
from acr_ray.models import load_checkpoint
from acr_ray.serving import service as room
from acr_ray.serving.asking import JSON
from acr_ray.serving.errors import Refused
from acr_ray.smoothing import two_class_rules
from acr_ray.smoothing.bounds import radius, round_down
from acr_ray.smoothing.lattice_law import alpha_left, levels_for, noise_share
from acr_ray.smoothing.plan import ESTIMATE, SELECT, Phase
from acr_ray.smoothing.rules import Draws
from acr_ray.smoothing.stopping import rule_for
from acr_ray.smoothing.two_class import second_count
from tests.serving import making

BUDGET = {"max_draws": 1000, "radii": (0.0, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4)}


@pytest.fixture(scope="module")
def service():
    made = making.service(certificate="two-class", **BUDGET)
    yield made
    made.close()


def answers(service, kind, images, **options):
    body = json.dumps({"images": [{"array": image.tolist()} for image in images], **options}).encode()
    return asyncio.run(service.answer(kind, JSON, body, {}))["results"]


def plain(image, kind, settings, radii, most):
    """Each look drawn anew, from the start, for this image alone."""
    model, card = load_checkpoint(making.checkpoint())
    engine, pixels = making.engine(model), torch.from_numpy(image)
    key = making.SECRET.key([card.sha256, repr(making.SIGMA), kind], image)

    def counts(name, draws):
        phase = Phase(name, draws, settings.chunk)
        return engine.count(pixels, key, 0, phase, 0, phase.blocks)

    share = noise_share(
        making.SIGMA, levels_for(making.SIGMA, making.GRID), image.size, settings.n0 + settings.max_draws
    )
    rule = rule_for(settings.rule(making.SIGMA, alpha_left(settings.alpha, share), radii))
    select = counts(SELECT, settings.n0)
    selected, looks, claim, reason = int(np.argmax(select)), [], 0.0, "max_draws"
    for look in [look for look in rule.looks if look <= most]:
        looks.append(sparse(counts(ESTIMATE, look)))
        draws = Draws(selected, sparse(select), looks)
        judged, claim = rule.judge_draws(draws), rule.claim_of_draws(draws)
        if judged.stop:
            assert judged.p_lower == claim
            reason = judged.reason
            break
    return {
        "selected": selected,
        "class": selected if claim > 0.5 else None,
        "radius": float(round_down(float(radius(claim, making.SIGMA)), 6)) if claim > 0.5 else 0.0,
        "n": rule.looks[len(looks) - 1] if looks else 0,
        "count": looks[-1].get(selected, 0) if looks else 0,
        "count_second": second_count(looks[-1], selected) if looks else 0,
        "reason": reason,
    }


@pytest.mark.parametrize(("kind", "most"), [("certify", 1000), ("predict", 1000), ("certify", 130), ("certify", 20)])
def test_answers_are_those_of_the_plain_way(service, kind, most):
    images, radii = making.digits(12), service.settings.radii if kind == "certify" else (0.0,)
    found = answers(service, kind, images, max_draws=most, deadline_ms=9000)
    for image, answer in zip(images, found, strict=True):
        wanted = plain(image, kind, service.settings, radii, most)
        assert {key: answer[key] for key in wanted if key in answer} == {k: v for k, v in wanted.items() if k in answer}
        assert answer["certificate"] == "two-class" and answer["bound"] == "sequential-radii-two-class/1"
        assert answer["grade"] == "sound" and answer["alpha"] == 0.001
    if most == 1000:
        assert len({answer["n"] for answer in found}) > 1 and any(answer["class"] is not None for answer in found)
    if most == 20:  # before the rule's first look
        assert {(answer["n"], answer["reason"], answer["abstained"]) for answer in found} == {(0, "max_draws", True)}


def test_what_one_class_answers_prove_two_class_ones_do_and_more(service):
    images, other = making.digits(20), making.service(**BUDGET)
    found, one = (answers(which, "certify", images) for which in (service, other))
    other.close()
    assert {answer["certificate"] for answer in one} == {"one-class"} and "count_second" not in one[0]
    assert sum(a["radius"] for a in found) > sum(b["radius"] for b in one)


def test_the_rule_is_made_before_the_model_answers_and_other_radii_share_it(service, monkeypatch):
    begun = making.Service(service.settings, making.SECRET)
    ready = []
    monkeypatch.setattr(room, "rule_for", lambda settings: ready.append(begun.ready) or rule_for(settings))
    monkeypatch.setattr(two_class_rules, "boundary", lambda *_: pytest.fail("computed again"))  # the fixture's are kept
    begun.use(*load_checkpoint(making.checkpoint()), {"name": "digits"})
    assert ready == [False, False] and begun.ready
    (answer,) = answers(begun, "certify", making.digits(1), radius=0.13)
    assert answer["radius_asked"] == 0.13 and len(ready) == 3
    begun.close()


def test_an_alpha_of_the_clients_own_is_refused(service):
    images = making.digits(1)
    with pytest.raises(Refused, match="alpha: 0.0001; this server's two-class answers are at 0.001") as refused:
        answers(service, "certify", images, alpha=0.0001)
    assert refused.value.status == 422
    assert answers(service, "certify", images, alpha=0.001)[0]["alpha"] == 0.001
    assert answers(service, "p_a", images, label=1, alpha=0.0001)[0]["alpha"] == 0.0001
