"""What the pipeline may do, compared with what it does: apply the kinds the manifests hold."""

from __future__ import annotations

# What `kubectl apply` does with any object.
APPLY = frozenset({"get", "create", "patch"})
# Beyond that: waiting for a deployment (`kubectl rollout status`).
WAIT = {("apps", "deployments"): frozenset({"list", "watch"})}
# Made when CloudServe is installed, and only updated since.
NOT_CREATED = {("", "namespaces")}

# Kinds whose plural is not the kind in lower case with an s.
PLURALS = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}


def group_of(document: dict) -> str:
    group, slash, _ = document["apiVersion"].partition("/")
    return group if slash else ""


def resource_of(document: dict) -> tuple[str, str]:
    kind = document["kind"]
    return group_of(document), PLURALS.get(kind, kind.lower() + "s")


def needed(objects: list[dict]) -> dict[tuple[str, str], frozenset[str]]:
    """Resource -> verbs that applying these takes."""
    resources = {resource_of(document) for document in objects}
    return {
        resource: (APPLY - {"create"} if resource in NOT_CREATED else APPLY) | WAIT.get(resource, frozenset())
        for resource in resources
    }


def granted(role: dict) -> dict[tuple[str, str], frozenset[str]]:
    rights: dict[tuple[str, str], frozenset[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                key = (group, resource)
                rights[key] = rights.get(key, frozenset()) | frozenset(rule["verbs"])
    return rights


def check(rbac: list[dict], objects: list[dict], complain) -> None:
    """Neither less than the pipeline needs nor more."""
    (role,) = [document for document in rbac if document["kind"] == "ClusterRole"]
    wanted, given = needed(objects), granted(role)
    for resource in sorted(wanted.keys() | given.keys()):
        name = "/".join(filter(None, resource))
        missing = wanted.get(resource, frozenset()) - given.get(resource, frozenset())
        surplus = given.get(resource, frozenset()) - wanted.get(resource, frozenset())
        if missing:
            complain(f"the role may not {', '.join(sorted(missing))} {name}, which the manifests need")
        if surplus:
            complain(f"the role may {', '.join(sorted(surplus))} {name}, which nothing needs")
    for rule in role["rules"]:
        if "namespaces" in rule["resources"] and not rule.get("resourceNames"):
            complain("the role may change any namespace: name the one it is for")
    check_binding(rbac, role, objects, complain)


def check_binding(rbac: list[dict], role: dict, objects: list[dict], complain) -> None:
    """One binding, in the namespace of the manifests, of an account that is there."""
    bindings = [document for document in rbac if document["kind"].endswith("RoleBinding")]
    accounts = {
        (document["metadata"]["namespace"], document["metadata"]["name"])
        for document in rbac
        if document["kind"] == "ServiceAccount"
    }
    namespaces = {document["metadata"]["namespace"] for document in objects if resource_of(document) != ("", "namespaces")}
    for binding in bindings:
        if binding["kind"] != "RoleBinding" or {binding["metadata"]["namespace"]} != namespaces:
            complain(f"{binding['kind']} {binding['metadata']['name']}: must be a RoleBinding in {sorted(namespaces)}")
        if binding["roleRef"]["name"] != role["metadata"]["name"]:
            complain(f"{binding['metadata']['name']} binds another role: {binding['roleRef']['name']}")
        for subject in binding["subjects"]:
            if (subject["namespace"], subject["name"]) not in accounts:
                complain(f"{binding['metadata']['name']}: there is no account {subject['name']} in {subject['namespace']}")
    if not bindings:
        complain("the role is bound to nobody")
