"""A SLURM of our own: munged, slurmctld and slurmd with one node on loopback, in a folder that ends with it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
NUM_CPUS = 4
CONFIG = """
ClusterName=winnow
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
ReturnToService=2
KillWait=5
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Return the programs that are not installed."""
    found = os.environ["PATH"] + ":/usr/sbin:/sbin"
    return [name for name in PROGRAMS if shutil.which(name, path=found) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class SlurmCluster:
    """Starts at once; ``close`` leaves neither process nor file behind. Its commands find it by ``environment``."""

    def __init__(self) -> None:
        # Not pytest's folder: munged wants each folder above its socket to be nobody else's to write to.
        self.folder = Path(tempfile.mkdtemp(prefix="winnow-slurm-"))
        self.folder.chmod(0o755)
        self.node = socket.gethostname().partition(".")[0]
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []
        try:
            self._start_munge()
            self._write_config()
            self._start("slurmctld", "-D", "-i")
            self._start("slurmd", "-D")
            self._await_node()
        except BaseException:
            self.close()
            raise

    def jobs(self, states: str = "PENDING,RUNNING,COMPLETING,SUSPENDED") -> list[tuple[str, str, str]]:
        """Return (job id, name, state) of each job in the queue."""
        listed = self.run("squeue", "--noheader", f"--states={states}", "--format=%A|%j|%T")
        return [tuple(line.split("|")) for line in listed.splitlines()]  # type: ignore[misc]

    def run(self, *command: str) -> str:
        return subprocess.run(
            command, check=True, text=True, capture_output=True, env={**os.environ, **self.environment}
        ).stdout

    def jobs_after(self, seconds: float) -> list[tuple[str, str, str]]:
        """Return what is in the queue by then still; none as soon as there is none."""
        deadline = time.monotonic() + seconds
        while (jobs := self.jobs()) and time.monotonic() < deadline:
            time.sleep(0.2)
        return jobs

    def clear(self) -> None:
        """End all jobs."""
        subprocess.run(["scancel", "--user=root"], env={**os.environ, **self.environment}, capture_output=True)
        self.jobs_after(15)

    def lose_node(self) -> None:
        """Return all that runs there dies without a word, and waits in the queue to be started again."""
        node = self._daemons.pop()
        node.kill()
        self._kill_jobs()
        node.wait()
        self.run("scontrol", "update", f"NodeName={self.node}", "State=DOWN", "Reason=lost")

    def find_node(self) -> None:
        self._start("slurmd", "-D")
        self.run("scontrol", "update", f"NodeName={self.node}", "State=RESUME")
        self._await_node()
        # It is told now to end the jobs that it had when it was lost: one that is started again before that ends as well.
        time.sleep(4)

    def _kill_jobs(self) -> None:
        for process in self._processes_of_jobs():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _processes_of_jobs(self) -> list[psutil.Process]:
        """Return each job's slurmstepd, which is nobody's child, and all below it."""
        found = []
        for process in psutil.process_iter(["name"]):
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                if process.info["name"].startswith("slurmstepd") and self._is_ours(process):
                    found += [process, *process.children(recursive=True)]
        return found

    def _is_ours(self, process: psutil.Process) -> bool:
        # psutil stops reading where slurmstepd has written its title.
        variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
        return f"SLURM_CONF={self.environment['SLURM_CONF']}".encode() in variables

    def close(self) -> None:
        if len(self._daemons) == 3:
            self.clear()
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._kill_jobs()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        folder.mkdir(mode=0o755)
        (folder / "key").write_bytes(secrets.token_bytes(128))
        (folder / "key").chmod(0o400)
        for path in (folder, folder / "key"):
            shutil.chown(path, "munge", "munge")
        files = [f"--{name}-file={folder}/{name}" for name in ("key", "pid", "log", "seed")]
        self._start("munged", "--foreground", f"--socket={folder}/socket", *files, user="munge")
        deadline = time.monotonic() + 20
        while not (folder / "socket").exists():
            assert time.monotonic() < deadline, self._log("munged.out")
            time.sleep(0.05)

    def _write_config(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        text = CONFIG.format(
            host=self.node, folder=self.folder, cpus=NUM_CPUS,
            controller_port=free_port(), node_port=free_port(),
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")

    def _start(self, program: str, *arguments: str, user: str | None = None) -> None:
        path = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        assert path is not None
        with (self.folder / f"{program}.out").open("wb") as output:
            self._daemons.append(
                subprocess.Popen(
                    [path, *arguments], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", user=user,
                    group=user, extra_groups=[] if user else None, env={**os.environ, **self.environment},
                    start_new_session=True,
                )
            )  # fmt: skip

    def _await_node(self) -> None:
        deadline = time.monotonic() + 40
        while True:
            answer = subprocess.run(
                ["sinfo", "--noheader", "--format=%t"], text=True, capture_output=True,
                env={**os.environ, **self.environment},
            ).stdout.strip()  # fmt: skip
            if answer == "idle":
                return
            assert time.monotonic() < deadline, (answer, self._log("slurmctld.log"), self._log("slurmd.log"))
            time.sleep(0.2)

    def _log(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(errors="replace")[-3000:] if path.exists() else f"no {name}"
