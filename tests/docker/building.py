"""Images for tests, built for real: a Debian base by debootstrap (no registry needed), then ours by buildah."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent.parent
BASE, NODE, MLFLOW = "localhost/acr-ray-test-base", "localhost/acr-ray-test", "localhost/acr-ray-test-mlflow"
MIRROR = os.environ.get("ACR_RAY_DEBIAN_MIRROR", "http://deb.debian.org/debian")
KEEP = "ACR_RAY_KEEP_IMAGES"  # set: leave the images for make compose-test, and take those that are there
# Without namespaces of its own: works inside containers too.
ENVIRONMENT = {**os.environ, "BUILDAH_ISOLATION": "chroot", "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


class BuildFailed(RuntimeError):
    """A command failed; the text has the end of what it printed."""


def missing(*programs: str) -> str:
    """Why images can't be built here; empty where they can."""
    if os.getuid() != 0:
        return "building the Debian base needs root"
    absent = [name for name in programs if not shutil.which(name, path=ENVIRONMENT["PATH"])]
    return f"missing: {', '.join(absent)} (Debian packages of the same names)" if absent else ""


def call(*command: object, seconds: int = 900) -> str:
    """Run a command, return its standard output."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=seconds, cwd=ROOT, env=ENVIRONMENT, errors="replace"
    )
    if done.returncode:
        raise BuildFailed(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def exists(image: str) -> bool:
    return subprocess.run(["buildah", "inspect", "--type", "image", image], capture_output=True).returncode == 0


def make_base() -> None:
    """A minimal Debian with Python, as the Dockerfiles' BASE_IMAGE."""
    with TemporaryDirectory(prefix="acr-base-") as name:
        folder, archive = Path(name) / "root", Path(name) / "base.tar"
        packages = "python3,python3-venv,python3-pip,ca-certificates"
        call("debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", folder, MIRROR)
        with tarfile.open(archive, "w") as tar:
            tar.add(folder, arcname=".")
        container = call("buildah", "from", "scratch").strip()
        call("buildah", "add", "--quiet", container, archive, "/")
        call(
            "buildah", "config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container
        )
        call("buildah", "commit", "--rm", "--quiet", container, BASE)


def pip_setting(name: str) -> str | None:
    """What pip goes by on this machine, from its environment or its files; None where it is pip's default."""
    if found := os.environ.get(f"PIP_{name.upper().replace('-', '_')}"):
        return found
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    lines = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
    return lines.get(f"global.{name}", "").strip("'\"") or None


def build(dockerfile: str, image: str, folder: Path = ROOT) -> None:
    """Build one of ours on the base. pip's index and certificate go in as build secrets."""
    with TemporaryDirectory(prefix="acr-build-") as name:
        settings, secrets = ["[global]", "timeout = 180"], []
        bundle = pip_setting("cert") or os.environ.get("SSL_CERT_FILE")
        if bundle:
            settings.append("cert = /run/secrets/ca_bundle")
            secrets += ["--secret", f"id=ca_bundle,src={bundle}"]
        if index := pip_setting("index-url"):
            settings.append(f"index-url = {index}")
        config = Path(name) / "pip.conf"
        file = folder / dockerfile if folder != ROOT else ROOT / "docker" / dockerfile
        config.write_text("\n".join(settings) + "\n")
        call(
            "buildah",
            "bud",
            "--format",
            "docker",
            "--layers=false",
            "--build-arg",
            f"BASE_IMAGE={BASE}",
            "--secret",
            f"id=pip_conf,src={config}",
            *secrets,
            "--file",
            file,
            "--tag",
            image,
            folder,
            seconds=1500,
        )


def make_images() -> None:
    """Base, node and MLflow; where KEEP is set, only those that are not there yet."""
    keep = bool(os.environ.get(KEEP))
    if not (keep and exists(BASE)):
        make_base()
    for dockerfile, image in (("Dockerfile", NODE), ("mlflow.Dockerfile", MLFLOW)):
        if not (keep and exists(image)):
            build(dockerfile, image)


def remove_images(*images: str) -> None:
    """Remove images of tests and the layers that only they had."""
    for image in images:
        subprocess.run(["buildah", "rmi", "--force", image], capture_output=True)


def settings(image: str) -> dict:
    """What the image says of itself: user, environment, health check, labels."""
    return json.loads(call("buildah", "inspect", "--type", "image", image))["Docker"]["config"]


class Container:
    """``with Container(NODE) as inside: inside.run("id", "-u")``: commands in an image, as its own user."""

    def __init__(self, image: str) -> None:
        self.image = image

    def __enter__(self) -> Container:
        self.name = call("buildah", "from", "--pull=never", self.image).strip()
        self.root = Path(call("buildah", "mount", self.name).strip())
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["buildah", "umount", self.name], capture_output=True)
        subprocess.run(["buildah", "rm", self.name], capture_output=True)

    def command(self, *words: object, **environment: str) -> list[str]:
        settings = [f"--env={key}={value}" for key, value in environment.items()]
        return ["buildah", "run", *settings, self.name, "--", *map(str, words)]

    def run(self, *words: object, code: int = 0, seconds: int = 300, **environment: str) -> str:
        """Run a command, return what it printed; fails where the exit code is another."""
        done = subprocess.run(
            self.command(*words, **environment), capture_output=True, text=True, timeout=seconds, env=ENVIRONMENT
        )
        text = done.stdout + done.stderr
        assert done.returncode == code, f"{words}: exit code {done.returncode}\n{text[-3000:]}"
        lines = [line for line in text.splitlines() if not re.match(r"subprocess exited|Error: exit status", line)]
        return "\n".join(lines) + "\n"  # without what buildah says about the exit code
