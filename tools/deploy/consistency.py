"""What is said in two places: versions, targets, variables, metrics, settings, codes, options."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from provision.paths import REPOSITORY

from .manifests import JOBS, documents


def text_of(name: str) -> str:
    return Path(REPOSITORY, name).read_text(encoding="utf-8")


def server_settings() -> set[str]:
    """Every CLOUDSERVE_ variable that the server reads."""
    return set(re.findall(r'"(CLOUDSERVE_[A-Z0-9_]+)"', text_of("cli/src/config.rs") + text_of("cli/src/secrets.rs")))


# Where images get their names and tags.
KUSTOMIZATIONS = (
    "k8s/base/kustomization.yaml",
    "k8s/overlays/roles/kustomization.yaml",
    *(str(job.relative_to(REPOSITORY) / "kustomization.yaml") for job in JOBS),
)


def check_versions(complain) -> None:
    package = tomllib.loads(text_of("Cargo.toml"))["workspace"]["package"]
    dockerfile = text_of("Dockerfile")
    (rust,) = re.findall(r"^ARG RUST=rust:([\d.]+)-", dockerfile, re.MULTILINE)
    if not f"{rust}.".startswith(f"{package['rust-version']}."):
        complain(f"Dockerfile: Rust is {rust}, and Cargo.toml says {package['rust-version']}")
    (version,) = re.findall(r"^ARG VERSION=(\S+)", dockerfile, re.MULTILINE)
    tags = {tag for name in KUSTOMIZATIONS for tag in re.findall(r"newTag: (\S+)", text_of(name))}
    for where, found in (("Dockerfile", version), *(("k8s kustomizations", tag) for tag in tags)):
        if found != package["version"]:
            complain(f"{where}: the version is {found}, and Cargo.toml says {package['version']}")


def check_targets(complain) -> None:
    """Whoever builds images builds targets that there are, and all of them."""
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", text_of("Dockerfile"), re.MULTILINE))
    images = {
        image
        for name in KUSTOMIZATIONS
        for image in re.findall(r"^  - name: cloudserve-(\S+)", text_of(name), re.MULTILINE)
    }
    for name, pattern in (("Jenkinsfile", r"^def targets = (\[.*\])"),
                          (".github/workflows/ci.yml", r"^ +TARGETS: (.*)$")):
        (found,) = re.findall(pattern, text_of(name), re.MULTILINE)
        targets = set(re.findall(r"[\w-]+", found))
        if not targets <= stages:
            complain(f"{name}: the Dockerfile has no target {sorted(targets - stages)}")
        if targets != images:
            complain(f"{name} builds {sorted(targets)}, and the manifests use {sorted(images)}")


METRICS = {
    "cloudserve_gateway_": "gateway/src/metrics.rs",
    "cloudserve_remote_": "remote/src/metrics.rs",
    "cloudserve_sandbox_": "cli/src/status.rs",
}


# Where the values of their labels are.
LABELS = {
    "cloudserve_gateway_": ("protocol/src/fault.rs", "gateway/src/refusal.rs"),
    "cloudserve_remote_": ("remote/src/metrics.rs",),
    "cloudserve_sandbox_": ("cli/src/status.rs", "runtime/sandbox/src/death.rs"),
}
ALERTS = "k8s/components/alerts/rules.yaml"


def exported_metrics() -> set[str]:
    exported = set()
    for prefix, source in METRICS.items():
        code = text_of(source).partition("#[cfg(test)]")[0]
        exported |= set(re.findall(rf"{prefix}\w+", code)) - {prefix}
        exported |= {prefix + name for name in re.findall(r'\("(\w+)", "(?:counter|gauge)"', code)}
    return exported


def explained_metrics() -> dict[str, str]:
    """Metric -> its label, if it has one."""
    return dict(re.findall(r"^\| `(cloudserve_\w+)(?:\{(\w+)\})?`", text_of("docs/OPERATIONS.md"), re.MULTILINE))


def check_metrics(complain) -> None:
    """docs/OPERATIONS.md explains the metrics that there are, and no others."""
    told, exported = set(explained_metrics()), exported_metrics()
    for name in sorted(exported - told):
        complain(f"docs/OPERATIONS.md does not explain the metric {name}")
    for name in sorted(told - exported):
        complain(f"docs/OPERATIONS.md explains {name}, which nobody exports")
    shown = {whole(name) for name in dashboard_metrics()}
    for name in sorted(shown - exported):
        complain(f"k8s/grafana/cloudserve.json shows {name}, which nobody exports")
    for name in sorted(exported - shown):
        complain(f"k8s/grafana/cloudserve.json does not show {name}")


def named(names, told: str) -> set[str]:
    """Those of the names that a document shows as code, with or without CLOUDSERVE_."""
    shown = set(re.findall(r"[\w-]+", " ".join(re.findall(r"`[^`\n]+`", told))))
    return {name for name in names if {name, name.removeprefix("CLOUDSERVE_")} & shown}


def settings_and_codes() -> set[str]:
    """What docs/API.md is to name: variables, limits, and codes of errors."""
    limits = text_of("protocol/src/limits.rs").partition("#[cfg(test)]")[0]
    (own,) = re.findall(r"pub fn numbers.*?\n    }\n", limits, re.DOTALL)
    (platform,) = re.findall(r"pub struct PlatformLimits {.*?\n}\n", limits, re.DOTALL)
    (refusals,) = re.findall(r"^codes! {\n(.*?)^}", text_of("gateway/src/refusal.rs"), re.DOTALL | re.MULTILINE)
    return (
        server_settings()
        | set(re.findall(r'"(\w+)", self', own))
        | set(re.findall(r"pub (\w+):", platform))
        | set(re.findall(r'"(\w+)"', refusals))
        | set(re.findall(r'Self::\w+ => "(\w+)"', text_of("protocol/src/fault.rs")))
        | set(re.findall(r'StatusCode::\w+,\s*"(\w+)"', text_of("api/src/http/problem.rs")))
        | set(re.findall(r'told\("(\w+)"', text_of("api/src/build/pipeline.rs")))
    )


def client_options() -> set[str]:
    """What docs/CLI.md is to name: options of the commands, and their variables."""
    folders = [Path(REPOSITORY, "cli/src", name) for name in ("client", "admin")]
    files = sorted(path for folder in folders for path in folder.rglob("*.rs"))
    code = "\n".join(path.read_text(encoding="utf-8") for path in files)
    fields = re.findall(r"#\[arg\(long\b[^\n]*\)\]\s+(?:pub(?:\(\w+\))? )?(\w+):", code)
    variables = re.findall(r'pub\(crate\) const \w+_VARIABLE: &str = "(CLOUDSERVE_\w+)"', code)
    # The cache's is the server's.
    return {f"--{field.replace('_', '-')}" for field in fields} | set(variables) - server_settings()


def check_documents(complain) -> None:
    """Users find every setting, limit, code and option where they look for them."""
    for document, names in (("docs/API.md", settings_and_codes()), ("docs/CLI.md", client_options())):
        for name in sorted(names - named(names, text_of(document))):
            complain(f"{document} does not name {name}")


def whole(name: str) -> str:
    """A histogram is asked for by its parts."""
    return re.sub(r"_(?:bucket|sum|count)$", "", name)


def check_alerts(complain) -> None:
    """Alerts are about metrics that there are, and docs/OPERATIONS.md says what to do about each."""
    (document,) = documents(text_of(ALERTS))
    rules = [rule for group in document["spec"]["groups"] for rule in group["rules"]]
    for rule in rules:
        check_expression(rule["expr"], lambda text, rule=rule: complain(f"{ALERTS}: {rule['alert']} {text}"))
    told = set(re.findall(r"`(CloudServe\w+)`", text_of("docs/OPERATIONS.md")))
    for name in sorted({rule["alert"] for rule in rules} ^ told):
        complain(f"{name} is either in {ALERTS} or in docs/OPERATIONS.md")


def check_expression(expression: str, complain) -> None:
    exported, told = exported_metrics(), explained_metrics()
    for name, matchers in re.findall(r"\b(cloudserve_\w+)(?:\{([^}]*)\})?", expression):
        if whole(name) not in exported:
            complain(f"asks for {name}, which nobody exports")
            continue
        (prefix,) = [prefix for prefix in LABELS if name.startswith(prefix)]
        code = "".join(map(text_of, LABELS[prefix]))
        for label, values in re.findall(r'(\w+)\s*[=!]~?\s*"([^"]*)"', matchers):
            if label != told.get(whole(name)):
                complain(f"asks for a label {label} of {name}, which has none")
            for value in values.split("|"):
                if f'"{value}"' not in code:
                    complain(f"asks for {name} where {label} is {value}, which it never is")


def dashboard_metrics() -> set[str]:
    """What Grafana's dashboard asks Prometheus for."""
    panels = json.loads(text_of("k8s/grafana/cloudserve.json"))["panels"]
    queries = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    return set(re.findall(r"\bcloudserve_\w+", queries))


def check_jenkinsfile(complain) -> list[str]:
    """No validator of Groovy is at hand: brackets and quotes are matched. The shell scripts in it,
    for a validator that is."""
    source = text_of("Jenkinsfile")
    token = re.compile(r"//[^\n]*|'''(.*?)'''|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"|[()\[\]{}'\"]", re.DOTALL)
    pairs = {")": "(", "]": "[", "}": "{"}
    opened, scripts = [], []
    for found in token.finditer(source):
        symbol = found.group()
        line = source.count("\n", 0, found.start()) + 1
        if found.group(1) is not None:
            scripts.append(found.group(1))
        elif symbol in "([{":
            opened.append((symbol, line))
        elif symbol in pairs and (not opened or opened.pop()[0] != pairs[symbol]):
            complain(f"Jenkinsfile:{line}: {symbol} closes nothing")
            return scripts
        elif symbol in "'\"":
            complain(f"Jenkinsfile:{line}: a quote is not closed")
    for symbol, line in opened:
        complain(f"Jenkinsfile:{line}: {symbol} is not closed")
    return scripts
