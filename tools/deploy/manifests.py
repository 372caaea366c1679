"""The manifests: files as they are, and overlays and jobs as `kubectl kustomize` renders them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from provision.paths import REPOSITORY

K8S = REPOSITORY / "k8s"
JENKINS = K8S / "jenkins"
OVERLAYS = sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml"))
# Applied by themselves, beside the overlay whose volume they need.
JOBS = sorted(path.parent for path in K8S.glob("jobs/*/kustomization.yaml"))
# Complete objects that no overlay holds.
OTHERS = [JENKINS / name for name in ("jenkins-rbac.yaml", "kaniko-pod.yaml", "kubectl-pod.yaml")]


class RenderError(Exception):
    """A kustomization that kustomize does not take."""


def has_kubectl() -> bool:
    return shutil.which("kubectl") is not None


def render(folder: Path) -> str:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False,
    )
    # What is deprecated is said on standard error, with success.
    if done.returncode != 0 or done.stderr.strip():
        raise RenderError(done.stderr.strip())
    return done.stdout


def documents(text: str) -> list[dict]:
    import yaml

    return [document for document in yaml.safe_load_all(text) if document]


def containers(document: dict) -> list[dict]:
    """Those of a pod, or of what makes pods."""
    spec = pod_spec(document)
    return [*spec.get("initContainers", []), *spec.get("containers", [])]


def pod_spec(document: dict) -> dict:
    spec = document.get("spec", {})
    return spec if document["kind"] == "Pod" else spec.get("template", {}).get("spec", {})
