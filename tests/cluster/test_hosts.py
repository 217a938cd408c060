"""Three hosts that work, one that leads and one that submits: jobs with a token, links cut, hosts killed.

One job of each kind meets all three faults one after the other: its result must be that of an undisturbed job, bit
for bit. A host that was killed or cut comes back under a supervisor, as anywhere; the last one stays away.
"""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.certification.test_faults import counts, tsv
from tests.cluster.files import ROOT
from tests.cluster.hosts import Hosts, missing
from tests.fakes.jobs import epochs_done, model_sha256
from tests.training.test_faults import history

WHY_NOT = missing()
pytestmark = [
    pytest.mark.hosts,
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT or "-"),
    pytest.mark.timeout(1500),
]

TRAIN = (
    "-m", "jobs.train", "digits", "--training.epochs", 30, "--training.e_t", 5, "--training.milestones", "10",
    "--reweigh.every", 4, "--checkpoint-every", 2, "--workers", 2, "--seed", 3, "--no-tracking",
)  # fmt: skip
CERTIFY = ("--max-images", 100, "--n", 100_000, "--actors", 3, "--seed", 5, "--no-tracking")
#: Seconds within which work has to go on after a fault.
LIMIT = 180


@pytest.fixture(scope="module")
def hosts():
    before = time.monotonic()
    running = Hosts(workers=3)
    print(f"\nfive hosts up: {time.monotonic() - before:.0f} s")
    yield running
    inside = [process for host in running.hosts for process in [host.first, *host.processes()]]
    running.end()
    assert len(inside) > 20 and psutil.wait_procs(inside, 10)[1] == [], "something is left behind"


@pytest.fixture(scope="module")
def trained(hosts):
    out = hosts.shared / "trained"
    before = time.monotonic()
    hosts.finish(hosts.submit(*TRAIN, "--out", out))
    print(f"\nundisturbed training: {time.monotonic() - before:.0f} s")
    return out


@pytest.fixture(scope="module")
def certified(hosts, trained):
    out = hosts.shared / "certified"
    before = time.monotonic()
    hosts.finish(hosts.submit("-m", "jobs.certify", trained, *CERTIFY, "--out", out))
    print(f"\nundisturbed certification: {time.monotonic() - before:.0f} s")
    return out


def kill(host):
    """The power fails. Its supervisor, which a real host would have again, starts Ray anew."""
    host.kill_everything()


def cut_for_a_while(host):
    host.cut()
    time.sleep(20)
    host.mend()


def cut_for_good(host):
    host.cut()


def at_work(hosts, word):
    return [host for host in hosts.workers if host.processes(word)]


def wait(hosts, job, condition, what, seconds=LIMIT):
    limit = time.monotonic() + seconds
    while not condition():
        assert job.poll() is None, f"the job ended before {what}\n{job.log.read_text()[-3000:]}"
        assert time.monotonic() < limit, f"{seconds} s without {what}\n{job.log.read_text()[-3000:]}"
        time.sleep(0.2)


def disturb(hosts, job, word, progress):
    """All three faults, each to a host that works on the job, each once the job is getting on again.

    Where work needs more hosts than are left it waits for those that are coming back.
    """
    for fault in (kill, cut_for_a_while, cut_for_good):
        wait(hosts, job, lambda: at_work(hosts, word), "a host at work")
        before, begun = progress(), time.monotonic()
        wait(hosts, job, lambda before=before: progress() > before, "progress before the fault")
        target, begun = at_work(hosts, word)[-1], time.monotonic()
        caught, before = target.processes(word), progress()
        fault(target)
        assert job.poll() is None, "the fault came too late to be one"
        wait(hosts, job, lambda before=before: progress() > before + 1, f"progress after {fault.__name__}")
        print(f"{fault.__name__} of {target.name}: work went on after {time.monotonic() - begun:.0f} s")
        if fault is not cut_for_good:  # a node that was given up ends itself once it hears of it
            assert psutil.wait_procs(caught, 60)[1] == [], "the fault did not reach the job"


def test_requests_without_the_token_are_refused(hosts):
    assert hosts.ask("/api/v0/nodes", None)[0] == 401
    assert hosts.ask("/api/v0/nodes", "0" * 64)[0] == 403
    assert hosts.ask("/api/v0/nodes", hosts.token.read_text())[0] == 200
    assert hosts.ask("/api/gcs_healthz", None)[0] == 200, "probes have no token"


def test_jobs_use_all_hosts(hosts, trained, certified):
    assert epochs_done(trained) == 30 and len(counts(certified)) == 100


def test_training_goes_on_after_hosts_are_killed_and_cut_off(hosts, trained):
    out = hosts.shared / "disturbed"
    job = hosts.submit(*TRAIN, "--out", out)
    disturb(hosts, job, "RayTrainWorker", lambda: epochs_done(out))
    hosts.finish(job)
    assert model_sha256(out) == model_sha256(trained)
    assert history(out) == history(trained)
    for worker in hosts.workers:
        worker.mend()
    hosts.wait_for_workers()


def test_certification_goes_on_after_hosts_are_killed_and_cut_off(hosts, trained, certified):
    out = hosts.shared / "certified-disturbed"

    def lines():
        return sum(len(path.read_text().splitlines()) for path in (out / "ledger").glob("*.jsonl"))

    job = hosts.submit("-m", "jobs.certify", trained, *CERTIFY, "--out", out)
    disturb(hosts, job, "ray::Sampler", lines)
    hosts.finish(job)
    assert counts(out) == counts(certified) and tsv(out) == tsv(certified)
    numbers = [json.loads((folder / "summary.json").read_text())["evaluations"] for folder in (out, certified)]
    assert numbers[0] == numbers[1], "no block is in the ledger twice"
    for worker in hosts.workers:
        worker.mend()


def test_hosts_end_with_the_process_that_made_them(tmp_path):
    code = (
        "import time; from pathlib import Path; from tests.cluster.hosts import Host\n"
        f"host = Host('alone', Path({str(tmp_path)!r}), 9); host.start(['sleep', '600'], {{'PATH': '/usr/bin:/bin'}})\n"
        "print(host.first.pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    first = psutil.Process(int(process.stdout.readline()))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert psutil.wait_procs([first], 10)[1] == []
