"""A real SLURM: a controller and two nodes, each a host of its own (tests.cluster.hosts)."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

from tests.cluster.files import ROOT
from tests.cluster.hosts import PATH, Network, absent
from tests.cluster.hosts import missing as missing_hosts

SCRIPT = ROOT / "cluster" / "slurm" / "acr-ray.sbatch"
CONFIGURATION = """
ClusterName=test
SlurmctldHost=node1({address}1)
SlurmctldPort=6817
SlurmdPort=6818
# Nobody but root is on these hosts.
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool-%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd-%n.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=30
NodeName=node1 NodeAddr={address}1 CPUs=1 RealMemory=4000 State=UNKNOWN
NodeName=node2 NodeAddr={address}2 CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why there can be no SLURM on this machine; empty where there can."""
    programs = absent("slurmctld", "slurmd", "sbatch", "scancel")
    return f"{programs} not installed (Debian: slurm-wlm)" if programs else missing_hosts()


class Slurm(Network):
    def __init__(self) -> None:
        super().__init__(["node1", "node2"])
        self.node1, self.node2 = self.hosts[1:]
        folder = self.base / "slurm"
        (self.base / "state").mkdir()
        folder.mkdir()
        (folder / "slurm.conf").write_text(CONFIGURATION.format(base=self.base, address="10.77.0."))
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "SLURM_"))}
        self.environment = kept | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "SLURM_TMPDIR": "/tmp/ray",  # a host's own
            "ACR_RAY_RUN_DIR": str(self.shared / "runs"),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{PATH}",
        }
        try:
            self.started.append(self.node1.start(["slurmctld", "-D"], self.environment))
            for host in (self.node1, self.node2):
                self.started.append(host.start(["slurmd", "-D", "-N", host.name], self.environment))
            self.until(lambda: self.ask("sinfo", "-h", "-t", "idle", "-o", "%D") == "2", 60, "two idle nodes")
        except BaseException:
            self.end()
            raise

    def ask(self, *command: object) -> str:
        return self.node1.run(*map(str, command), environment=self.environment, code=None).strip()

    def submit(self, *command: object) -> tuple[int, Path]:
        """sbatch with our script. Returns the job's number and its log."""
        log = self.shared / f"job-{time.monotonic_ns()}.log"
        options = ["--nodes=2", "--cpus-per-task=1", f"--output={log}", f"--chdir={ROOT}"]
        printed = self.ask("sbatch", *options, SCRIPT, *command)
        return int(re.search(r"Submitted batch job (\d+)", printed)[1]), log

    def state(self, job: int) -> str:
        return re.search(r"JobState=(\w+)", self.ask("scontrol", "show", "job", job))[1]

    def exit_code(self, job: int) -> int:
        return int(re.search(r"ExitCode=(\d+):", self.ask("scontrol", "show", "job", job))[1])

    def over(self, job: int) -> bool:
        return self.state(job) not in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING")

    def wait(self, job: int, log: Path, seconds: float = 500) -> None:
        """Until a job has ended, in whatever way."""
        self.until(lambda: self.over(job), seconds, f"the end of job {job}", log)

    def until(self, condition, seconds: float, what: str, *logs: Path) -> None:
        limit = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > limit:
                logs = [*filter(Path.exists, logs), *self.base.glob("*.log"), *(self.shared / "runs").rglob("*.log")]
                tails = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in logs)
                raise AssertionError(f"waited {seconds} s in vain for {what}\n{self.ask('sinfo')}\n{tails}")
            time.sleep(0.5)
