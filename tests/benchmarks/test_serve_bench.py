"""jobs.bench serve: its figures, from a service in this process."""

import threading

import uvicorn

from acr_ray.serving.http import build_app
from jobs.benchmarks import serve, serve_works
from jobs.benchmarks.processes import Worker
from tests.serving import making


def test_its_figures_from_a_real_server(tmp_path, capsys):
    service = making.service(chunk=100, deadline_ms=60_000)
    server = uvicorn.Server(uvicorn.Config(build_app(service), port=0, log_level="error", lifespan="off"))
    ready, started = threading.Event(), server.startup

    async def startup(sockets=None):
        await started(sockets=sockets)
        ready.set()

    server.startup = startup
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert ready.wait(30)
    port = server.servers[0].sockets[0].getsockname()[1]
    with Worker(serve.WORKS, {}) as worker:
        folder = worker.call("write_model", folder=str(tmp_path / "model"))
        measured = serve.Measurement(f"http://127.0.0.1:{port}", worker, folder, 500, 0.2, 30_000).all(1)
    server.should_exit = True
    thread.join(30)
    service.close()
    fixed = measured["clients"]["fixed, 64"]
    assert set(measured["clients"]) == {f"{kind}, {n}" for kind in ("fixed", "certify") for n in serve.CLIENTS}
    assert 0 < fixed["share_of_engine"]["median"] < 1.2 and fixed["p50_ms"]["median"] <= fixed["p99_ms"]["median"]
    assert measured["vs_one_by_one"]["median"] > 0 and measured["at_70_percent"]["within_deadline"]["median"] == 1
    assert "70 %" in capsys.readouterr().out


def test_what_it_compares_with_draws():
    folder = making.checkpoint()
    assert serve_works.engine_rate(folder, 0.05) > 100 and serve_works.one_by_one(folder, 0.05) > 0
