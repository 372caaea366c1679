"""The pipelines in examples/ci: what GitHub and GitLab would refuse, shell scripts, what these leave in
the project, and commands of cloudserve that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from .consistency import text_of
from .manifests import documents

GITHUB = "examples/ci/github-action.yml"
GITLAB = "examples/ci/gitlab-ci.yml"

GITHUB_KEYS = {"name", "run-name", "on", "permissions", "env", "defaults", "concurrency", "jobs"}
GITHUB_JOB_KEYS = {
    "name", "permissions", "needs", "if", "runs-on", "environment", "concurrency", "outputs", "env", "defaults",
    "steps", "timeout-minutes", "strategy", "continue-on-error", "container", "services",
}
GITHUB_STEP_KEYS = {
    "id", "if", "name", "uses", "run", "working-directory", "shell", "with", "env", "continue-on-error",
    "timeout-minutes",
}
GITLAB_KEYS = {"default", "include", "stages", "variables", "workflow"}
GITLAB_JOB_KEYS = {
    "after_script", "allow_failure", "artifacts", "before_script", "cache", "dependencies", "environment", "extends",
    "image", "interruptible", "needs", "parallel", "resource_group", "retry", "rules", "script", "secrets",
    "services", "stage", "tags", "timeout", "variables", "when",
}
# Variables that hold the project's own directory.
PROJECT = {"CI_PROJECT_DIR", "GITHUB_WORKSPACE", "PWD"}
# Commands of which arguments are files that they make: all of them, or the last.
MAKE_ALL, MAKE_LAST = {"tee", "touch", "mkdir"}, {"cp", "mv", "ln", "install"}
# Stages that there are where none are declared.
GITLAB_STAGES = {".pre", "build", "test", "deploy", ".post"}


def unknown(found, known, what, complain) -> None:
    for key in sorted(set(map(str, found)) - known):
        complain(f"{what}: there is no key {key}")


def hides_failures(step: dict) -> bool:
    """Whether a pipe of it counts by its last part alone: GitHub's own choice is `bash -e`, and
    `bash` where a step names it is `bash -eo pipefail`."""
    if step.get("shell") == "bash" or re.search(r"\bset -\w*o pipefail\b", step["run"]):
        return False
    bare = re.sub(r"'[^'\n]*'|(?:^|(?<=\s))#.*", "", step["run"], flags=re.MULTILINE)
    return re.search(r"(?<![|>])\|(?!\|)", bare) is not None


def github_scripts(workflow: dict, complain) -> list[str]:
    """Complains of what is no workflow; its shell scripts."""
    # YAML 1.1 reads `on` as true.
    workflow = {"on" if key is True else key: value for key, value in workflow.items()}
    unknown(workflow, GITHUB_KEYS, "the workflow", complain)
    if not workflow.get("on") or not workflow.get("jobs"):
        complain("a workflow needs `on` and `jobs`")
    scripts = []
    for name, job in (workflow.get("jobs") or {}).items():
        unknown(job, GITHUB_JOB_KEYS, f"job {name}", complain)
        if "runs-on" not in job or not job.get("steps"):
            complain(f"job {name} needs `runs-on` and `steps`")
        for number, step in enumerate(job.get("steps") or [], 1):
            what = f"job {name}, step {number}"
            unknown(step, GITHUB_STEP_KEYS, what, complain)
            if ("uses" in step) == ("run" in step):
                complain(f"{what} needs one of `uses` and `run`")
            elif "uses" in step and not re.fullmatch(r"[\w.-]+/[\w./-]+@[\w.-]+", step["uses"]):
                complain(f"{what}: {step['uses']} is no action of a version")
            elif "run" in step:
                if hides_failures(step):
                    complain(f"{what}: a failure before `|` passes unseen; say `shell: bash`")
                # What the service fills in is a word to the shell.
                scripts.append(re.sub(r"\$\{\{.*?\}\}", "filled-in", step["run"]))
    return scripts


def gitlab_scripts(pipeline: dict, complain) -> list[str]:
    """Complains of what is no pipeline; its shell scripts."""
    stages = {*pipeline.get("stages", GITLAB_STAGES)}
    scripts = []
    for name, job in pipeline.items():
        if name in GITLAB_KEYS:
            continue
        unknown(job, GITLAB_JOB_KEYS, f"job {name}", complain)
        if job.get("stage", "test") not in stages:
            complain(f"job {name}: there is no stage {job['stage']}")
        lines = job.get("script")
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            complain(f"job {name} needs a `script` of lines")
            continue
        scripts.append("\n".join(lines))
    return scripts


def written(line: str) -> list[str]:
    """What a line of a script writes to, as far as its redirections, options and commands say."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command, arguments, files, to_come = "", [], [], None
    for token in [*lexer, ";"]:
        if to_come == "redirection":
            # What is left are other outputs of the same process.
            files += [token] if not re.fullmatch(r"\d+|-", token) else []
            to_come = None
        elif set(token) <= set("<>&") and ">" in token:
            to_come = "redirection"
        elif set(token) <= set("();<>|&") or token in ("{", "}"):
            files += arguments if command in MAKE_ALL else arguments[-1:] if command in MAKE_LAST else []
            command, arguments = "", []
        elif to_come == "option":
            files.append(token)
            to_come = None
        elif token in ("-o", "-O", "--output"):
            to_come = "option"
        elif token.startswith("--output="):
            files.append(token.partition("=")[2])
        elif not command:
            command = token
        elif not token.startswith("-"):
            arguments.append(token)
    return files


def check_writes(script: str, complain) -> None:
    """A script leaves the project as it is: everything there is deployed."""
    for line in script.replace("\\\n", " ").splitlines():
        for path in written(line):
            variable = re.match(r"\$\{?(\w+)", path)
            is_outside = variable[1] not in PROJECT if variable else path.startswith("/")
            if not is_outside:
                complain(f"{path} is written into the project, and would be deployed")


def check_commands(script: str, told: str, complain) -> None:
    """docs/CLI.md tells of every command, and of every option, of cloudserve in a script."""
    for command, rest in re.findall(r"(?:^|[\s/{])cloudserve ((?:admin )?[a-z][a-z-]*)([^\n|}&;]*)", script):
        if not re.search(rf"`{command}[ `]", told):
            complain(f"there is no `cloudserve {command}`")
        for option in re.findall(r"(?<=\s)--[a-z][\w-]*", rest):
            if not re.search(rf"{option}\b", told):
                complain(f"there is no `cloudserve {command} {option}`")


def check(report, tools, directory: Path) -> None:
    told = text_of("docs/CLI.md")
    for path, scripts_of in ((GITHUB, github_scripts), (GITLAB, gitlab_scripts)):
        complain = report.about(path)
        (document,) = documents(text_of(path))
        scripts = scripts_of(document, complain)
        if not scripts:
            complain("it runs nothing")
        for number, script in enumerate(scripts, 1):
            check_commands(script, told, complain)
            check_writes(script, complain)
            file = directory / f"{Path(path).stem}-{number}.sh"
            file.write_text(script, encoding="utf-8")
            report.ran(tools.run("shellcheck", "--shell=bash", str(file)), f"shellcheck, {path}, script {number}")
