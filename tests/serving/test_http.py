"""Over HTTP, without Ray: what is answered, what is refused and how."""

import base64
import io
import json
import random

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from acr_ray.serving.http import build_app
from tests.serving import making

LOCAL = "http://127.0.0.1:8000"
LIMITS = {"body_bytes": 200_000, "pixels": 10_000, "images": 4, "max_draws": 500}


@pytest.fixture(scope="module")
def service():
    made = making.service(**LIMITS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(service):
    return TestClient(build_app(service), base_url=LOCAL)


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def picture(size=(8, 8), mode="L", kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **options)
    return file.getvalue()


def test_every_way_to_send_an_image_gives_the_same_answer(client):
    (image,) = making.digits(1)
    image = (image * 255).round().astype(np.float32) / np.float32(255)  # as a file holds it
    content = making.png(image)
    text = base64.b64encode(content).decode()
    found = [
        client.post("/v1/certify?max_draws=300", content=content, headers={"content-type": "image/png"}),
        client.post("/v1/certify", json={"image": {"base64": text}, "max_draws": 300}),
        client.post("/v1/certify", json={"images": [{"array": image.tolist()}], "max_draws": 300}),
        client.post("/v1/certify?max_draws=300", content=npy(image), headers={"content-type": "application/x-npy"}),
        client.post(
            "/v1/certify?max_draws=300",
            content=npy(np.asfortranarray(image[None].astype(np.float64))),
            headers={"content-type": "application/x-npy"},
        ),
    ]
    results = [answer.json()["results"] for answer in found]
    assert [answer.status_code for answer in found] == [200] * 5 and all(one == results[0] for one in results)
    (answer,) = results[0]
    assert {"class", "class_name", "radius", "n", "n0", "bound", "grade", "alpha", "sigma", "reason"} <= set(answer)
    assert found[0].json()["model"]["name"] == "digits" and len(found[0].json()["model"]["sha256"]) == 64


def test_predict_p_a_and_the_views(client):
    content, media = making.png(making.digits(1)[0]), {"content-type": "image/png"}
    predicted = client.post("/v1/predict", content=content, headers=media).json()["results"][0]
    assert predicted["class"] in (None, *range(10)) and "radius" not in predicted
    p_a = client.post("/v1/p_a?label=3&max_draws=200&fresh=true", content=content, headers=media).json()["results"][0]
    assert p_a["label"] == 3 and p_a["n"] == 200 and p_a["fresh"]
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    model = client.get("/v1/model").json()
    assert model["shape"] == [1, 8, 8] and model["sigma"] == 0.25 and model["limits"]["max_draws"] == 500


def test_a_service_without_a_model_says_so():
    service = making.service()
    service.close()
    client = TestClient(build_app(service), base_url=LOCAL)
    assert client.get("/healthz").status_code == 200 and client.get("/readyz").status_code == 503
    answer = client.post("/v1/certify", content=picture(), headers={"content-type": "image/png"})
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
    assert client.get("/v1/model").status_code == 503


def test_a_full_queue_is_429():
    service = making.service(queue=1, images=1)
    service._model.scheduler._turn.append(None)  # as if one were at work
    answer = TestClient(build_app(service), base_url=LOCAL).post(
        "/v1/certify", content=picture(), headers={"content-type": "image/png"}
    )
    service._model.scheduler._turn.clear()
    assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
    service.close()


def test_a_token_is_asked_for_and_compared(service):
    client = TestClient(build_app(service, b"a token of the tests"), base_url="http://anywhere.example")
    assert client.get("/v1/model").status_code == 401
    assert client.get("/v1/model").headers["www-authenticate"] == "Bearer"
    for wrong in ("Bearer nothing", "Bearer a token of the tests2", "Basic a token of the tests", "Bearer"):
        assert client.get("/v1/model", headers={"authorization": wrong}).status_code == 403
    assert client.get("/v1/model", headers={"authorization": "Bearer a token of the tests"}).status_code == 200
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_without_a_token_only_names_of_this_machine_are_answered(service):
    app = build_app(service)
    for host in ("http://127.0.0.1:8000", "http://localhost:1", "http://localhost", "http://[::1]:8000"):
        assert TestClient(app, base_url=host).get("/v1/model").status_code == 200
    for host in ("http://evil.example", "http://127.0.0.1.evil.example:80", "http://localhost.evil.example"):
        assert TestClient(app, base_url=host).get("/v1/model").status_code == 403


GOOD = making.png(making.digits(1)[0])
ZEROS = np.zeros((1, 8, 8)).tolist()
PNG, NPY = {"content-type": "image/png"}, {"content-type": "application/x-npy"}
BAD = [
    ("/v1/certify", GOOD, {}, 415, "Content-Type"),
    ("/v1/certify", GOOD, {"content-type": "text/plain"}, 415, "application/json"),
    ("/v1/certify", b"", PNG, 422, "PNG or JPEG"),
    ("/v1/certify", GOOD[:60], PNG, 422, "broken"),
    ("/v1/certify", picture((9, 8)), PNG, 422, "9 x 8"),
    ("/v1/certify", picture((200, 200)), PNG, 413, "200 x 200"),
    ("/v1/certify", picture(kind="GIF"), PNG, 422, "PNG or JPEG"),
    ("/v1/certify", b"x" * 300_000, PNG, 413, "200000"),
    ("/v1/certify?max_draws=501", GOOD, PNG, 422, "at most 500"),
    ("/v1/certify?max_draws=1", GOOD, PNG, 422, "max_draws"),
    ("/v1/certify?max_draws=x", GOOD, PNG, 422, "max_draws"),
    ("/v1/certify?alpha=0.01", GOOD, PNG, 422, "at most 0.001"),
    ("/v1/certify?alpha=1e-8", GOOD, PNG, 200, ""),
    ("/v1/certify?alpha=1e-300", GOOD, PNG, 422, "alpha"),
    ("/v1/certify?deadline_ms=99999999", GOOD, PNG, 422, "at most 10000"),
    ("/v1/certify?radius=-1", GOOD, PNG, 422, "radius"),
    ("/v1/certify?radius=nan", GOOD, PNG, 422, "radius"),
    ("/v1/certify?radius=1&radius=2", GOOD, PNG, 422, "twice"),
    ("/v1/predict?radius=1", GOOD, PNG, 422, "unknown"),
    ("/v1/certify?seed=1", GOOD, PNG, 422, "unknown"),
    ("/v1/p_a", GOOD, PNG, 422, "label: missing"),
    ("/v1/p_a?label=10", GOOD, PNG, 422, "0 to 9"),
    ("/v1/p_a?label=-1", GOOD, PNG, 422, "0 to 9"),
    ("/v1/certify", npy(np.zeros((1, 8, 8), dtype=object)), NPY, 422, "array"),
    ("/v1/certify", npy(np.zeros((1, 8, 8), dtype=np.uint8)), NPY, 422, "uint8"),
    ("/v1/certify", npy(np.zeros((8, 8))), NPY, 422, "(8, 8)"),
    ("/v1/certify", npy(np.zeros((5, 1, 8, 8))), NPY, 422, "1 to 4"),
    ("/v1/certify", npy(np.zeros((0, 1, 8, 8))), NPY, 422, "header"),
    ("/v1/certify", npy(np.full((1, 8, 8), np.nan)), NPY, 422, "NaN"),
    ("/v1/certify", npy(np.full((1, 8, 8), 255.0)), NPY, 422, "[0, 1]"),
    ("/v1/certify", npy(np.zeros((1, 8, 8))).replace(b"(1, 8, 8)", b"(9, 9, 9)"), NPY, 422, "header"),
    ("/v1/certify", npy(np.zeros((1, 8, 8)))[:-8], NPY, 422, "header"),
]
BAD_JSON = [
    (b"", 400),
    (b"{", 400),
    (b"\xff", 400),
    (b"[" * 100_000, 400),
    (b"[]", 422),
    (b"null", 422),
    (b'{"image": {"array": NaN}}', 400),
    (b"1" * 5000, 400),
    ({}, 422),
    ({"image": 1}, 422),
    ({"image": {"array": ZEROS}, "images": []}, 422),
    ({"images": []}, 422),
    ({"images": {"array": ZEROS}}, 422),
    ({"images": [{"array": ZEROS}] * 5}, 422),
    ({"image": {"array": []}}, 422),
    ({"image": {"array": [[["0"]]]}}, 422),
    ({"image": {"array": [[1], [1, 2]]}}, 422),
    ({"image": {"array": [[[1e999]]]}}, 422),
    ({"image": {"array": [[[10**400]]]}}, 422),
    ({"image": {"array": np.full((1, 8, 8), 2).tolist()}}, 422),
    ({"image": {"array": np.zeros((8, 8, 1)).tolist()}}, 422),
    ({"image": {"base64": "!"}}, 422),
    ({"image": {"base64": 5}}, 422),
    ({"image": {"base64": base64.b64encode(b"x").decode()}}, 422),
    ({"image": {"pickle": ""}}, 422),
    ({"image": {"array": ZEROS}, "alpha": "0.001"}, 422),
    ({"image": {"array": ZEROS}, "fresh": 1}, 422),
    ({"image": {"array": ZEROS}, "max_draws": True}, 422),
    ({"image": {"array": ZEROS}, "max_draws": 100.5}, 422),
    ({"image": {"array": ZEROS}, "label": [1]}, 422),
    ({"image": {"array": ZEROS}, "x" * 5000: 1}, 422),
]


@pytest.mark.parametrize(("path", "body", "headers", "status", "says"), BAD)
def test_what_is_wrong_is_said_in_one_line(client, path, body, headers, status, says):
    answer = client.post(path, content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert says in answer.text and "\n" not in answer.text and len(answer.text) < 700


@pytest.mark.parametrize(("body", "status"), BAD_JSON)
def test_json_that_is_wrong_is_refused(client, body, status):
    content = body if isinstance(body, bytes) else json.dumps(body).replace("Infinity", "1e999").encode()
    answer = client.post("/v1/certify", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status and "error" in answer.json(), answer.text
    assert len(answer.text) < 700


def test_other_paths_and_methods(client):
    assert client.get("/v1/nothing").status_code == 404 and client.get("/v1/certify").status_code == 405
    assert client.post("/healthz").status_code == 405 and "error" in client.get("/docs").json()


def test_a_body_without_a_length_is_read_no_further_than_it_may_be_long(client):
    read = []

    def parts():
        for number in range(100):
            read.append(number)
            yield b"x" * 50_000

    answer = client.post("/v1/certify", content=parts(), headers=PNG)
    assert answer.status_code == 413


def test_five_hundred_bad_requests_are_all_4xx(client):
    chance, whole = random.Random(0), json.dumps({"image": {"array": ZEROS}, "max_draws": 100}).encode()
    contents = [("image/png", GOOD), ("application/json", whole), (NPY["content-type"], npy(np.zeros((1, 8, 8))))]
    found = []
    while len(found) < 500:
        kind, content = chance.choice(contents)
        damaged = bytearray(content)
        for _ in range(chance.randint(1, 30)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        body = bytes(damaged[: chance.randint(0, len(damaged))])
        path = chance.choice(["/v1/certify", "/v1/predict", "/v1/p_a?label=0", "/v1/certify?radius=x"])
        answer = client.post(path, content=body, headers={"content-type": kind})
        if answer.status_code != 200:  # of some the damage leaves an image
            found.append(answer)
    assert all(400 <= answer.status_code < 500 and answer.json()["error"] for answer in found)
