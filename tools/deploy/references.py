"""What one object says of another: names that no schema knows, and no cluster would find before a
pod fails to start."""

from __future__ import annotations

import ipaddress
import re

from .manifests import containers, pod_spec

# Objects that the operator makes: docs/OPERATIONS.md.
OF_THE_OPERATOR = {"cloudserve", "cloudserve-tls", "ghcr"}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
# What a pod has beyond its notice and its drain before it is ended.
SPARE_SECONDS = 15
DRAIN = ("CLOUDSERVE_DRAIN_NOTICE_MS", "CLOUDSERVE_DRAIN_TIMEOUT_MS")
# Has a gateway in it: after calls have had the time of a drain, their usage rows have it once more
# (`Gateway::drain`).
STORES_LAST = re.compile(r"\bcloudserve-(?:all|gateway)\b")


def check(objects: list[dict], settings: set[str], complain) -> None:
    """Checks one rendered overlay. `settings` are the variables that the server knows."""
    pods = [document for document in objects if pod_spec(document)]
    for document in pods:
        check_pod(document, objects, settings, complain)
    for document in objects:
        kind, name = document["kind"], document["metadata"]["name"]
        spec = document.get("spec", {})
        if kind == "Service" and spec.get("selector"):
            check_service(document, pods, complain)
        if kind == "Ingress":
            check_ingress(document, objects, complain)
        if kind == "NetworkPolicy":
            check_policy(document, pods, complain)
        if kind == "HorizontalPodAutoscaler":
            check_autoscaler(document, objects, complain)
        if kind == "PodDisruptionBudget" and not selected(spec["selector"], pods):
            complain(f"{kind} {name} selects no pod")
    for kind, name in settings_of(objects, settings):
        complain(f"{kind}: {name} is no setting of the server (cli/src/config.rs)")


def check_job(jobs: list[dict], objects: list[dict], settings: set[str], complain) -> None:
    """Checks what is applied beside a rendered overlay, over the volume of its pods."""
    images = {
        container["image"]
        for document in objects if document["kind"] == "Deployment"
        for container in containers(document)
    }
    for document in filter(pod_spec, jobs):
        check_pod(document, objects, settings, complain)
        for container in containers(document):
            # Another release may not read the volume, and another name may be out of reach.
            if container["image"] not in images:
                complain(f"{document['metadata']['name']} runs {container['image']}, and the pods {sorted(images)}")


def settings_of(objects, settings):
    for document in objects:
        if document["kind"] == "ConfigMap":
            for name in document["data"]:
                if name not in settings:
                    yield "ConfigMap", name


def check_pod(document, objects, settings, complain):
    kind, name = document["kind"], document["metadata"]["name"]
    at = f"{kind} {name}"
    spec = pod_spec(document)
    if spec.get("automountServiceAccountToken") is not False:
        complain(f"{at} holds a token of the cluster")
    account = spec.get("serviceAccountName")
    if account and not exists(objects, "ServiceAccount", account):
        complain(f"{at}: there is no account {account}")
    if not spec["securityContext"].get("runAsNonRoot"):
        complain(f"{at} may run as root")
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    volumes |= {claim["metadata"]["name"]: claim for claim in document["spec"].get("volumeClaimTemplates", [])}
    used = set()
    for container in containers(document):
        where = f"{at}, container {container['name']}"
        context = container.get("securityContext", {})
        if not context.get("readOnlyRootFilesystem") or context.get("allowPrivilegeEscalation") is not False:
            complain(f"{where}: its root file system can be written, or privileges gained")
        if context.get("capabilities", {}).get("drop") != ["ALL"] or context["capabilities"].get("add"):
            complain(f"{where} keeps capabilities")
        resources = container.get("resources", {})
        if "memory" not in resources.get("limits", {}) or "cpu" not in resources.get("requests", {}):
            complain(f"{where} requests no processor or has no limit of memory")
        if re.search(r":latest$|^[^:@]+$", container["image"].rpartition("/")[2]):
            complain(f"{where}: {container['image']} is not pinned")
        # What is pinned is the same tomorrow: a registry that is away must keep no container from its restart.
        if container.get("imagePullPolicy", "IfNotPresent") != "IfNotPresent":
            complain(f"{where} starts only while its registry answers")
        for mount in container.get("volumeMounts", []):
            used.add(mount["name"])
            if mount["name"] not in volumes:
                complain(f"{where}: there is no volume {mount['name']}")
        for source in container.get("envFrom", []):
            config = source.get("configMapRef", {}).get("name")
            if config and not exists(objects, "ConfigMap", config):
                complain(f"{where}: there is no ConfigMap {config}")
        for variable in container.get("env", []):
            secret = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name")
            if secret and secret not in OF_THE_OPERATOR:
                complain(f"{where}: nobody makes the secret {secret}")
            if variable["name"].startswith("CLOUDSERVE_") and variable["name"] not in settings:
                complain(f"{where}: {variable['name']} is no setting of the server")
        ends_within = seconds_to_end(container, objects) + SPARE_SECONDS
        if ends_within > spec.get("terminationGracePeriodSeconds", 30) and kind == "Deployment":
            complain(f"{where} may take {ends_within} s to end, and its pod has less")
        # Whoever may list processes reads their arguments; an environment is its owner's.
        if any(re.search(r"--password(?![\w-])", word) for word in words_of(container)):
            complain(f"{where} passes a password as an argument")
        ports = {port["name"] for port in container.get("ports", [])}
        check_watched(where, document, container, objects, complain)
        for probe in PROBES:
            for action in ("httpGet", "tcpSocket"):
                port = container.get(probe, {}).get(action, {}).get("port")
                if port is not None and port not in ports:
                    complain(f"{where}: its {probe} asks port {port}, which it has not")
    for volume in volumes.keys() - used:
        complain(f"{at}: nothing mounts the volume {volume}")
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and not exists(objects, "PersistentVolumeClaim", claim):
            complain(f"{at}: there is no claim {claim}")


def check_watched(where, document, container, objects, complain):
    """A server of ours is watched where no caller can be in the way."""
    _, found, port = settings_given(container, objects).get("CLOUDSERVE_OPS_LISTEN", "").rpartition(":")
    if not found:
        return
    names = {known["name"]: known["containerPort"] for known in container.get("ports", [])}
    for probe in PROBES:
        asked = container.get(probe, {}).get("httpGet", {}).get("port")
        if asked is not None and str(names.get(asked, asked)) != port:
            complain(f"{where}: its {probe} asks port {asked}, where callers may have all places")
    scraped = document["spec"]["template"]["metadata"].get("annotations", {}).get("prometheus.io/port", port)
    if scraped != port:
        complain(f"{where}: it is scraped at port {scraped}, where callers may have all places")


def seconds_to_end(container, objects):
    """What goes before the signal, and what a server of ours takes after it, at most."""
    told = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    before = int(told[1]) if told[:1] == ["sleep"] else 0
    given = settings_given(container, objects)
    notice, drain = (int(given.get(name, 0)) for name in DRAIN)
    drains = 2 if STORES_LAST.search(container["image"]) else 1
    return before + (notice + drains * drain) // 1000


def settings_given(container, objects):
    """What a container's environment says, as far as manifests do."""
    configs = [source.get("configMapRef", {}).get("name") for source in container.get("envFrom", [])]
    given = {}
    for document in objects:
        if document["kind"] == "ConfigMap" and document["metadata"]["name"] in configs:
            given |= document["data"]
    given |= {variable["name"]: variable["value"] for variable in container.get("env", []) if "value" in variable}
    return given


def words_of(container):
    """What is run in it: its program, its probes and what its lifecycle says."""
    actions = [*(container.get(probe, {}) for probe in PROBES), *container.get("lifecycle", {}).values()]
    commands = [action.get("exec", {}).get("command", []) for action in actions]
    return sum(commands, [*container.get("command", []), *container.get("args", [])])


def check_service(document, pods, complain):
    name = document["metadata"]["name"]
    chosen = selected({"matchLabels": document["spec"]["selector"]}, pods)
    if not chosen:
        complain(f"Service {name} selects no pod")
    for port in document["spec"]["ports"]:
        target = port.get("targetPort", port["port"])
        if chosen and not any(has_port(pod, target) for pod in chosen):
            complain(f"Service {name}: no container has port {target}")


def check_autoscaler(document, objects, complain):
    name, target = document["metadata"]["name"], document["spec"]["scaleTargetRef"]
    found = [
        other for other in objects
        if other["kind"] == target["kind"] and other["metadata"]["name"] == target["name"]
    ]
    if not found:
        complain(f"HorizontalPodAutoscaler {name} scales {target['kind']} {target['name']}, which is not there")
    for other in found:
        # Applied again, it would undo what the autoscaler did.
        if "replicas" in other["spec"]:
            complain(f"{target['kind']} {target['name']} says how many replicas there are, and so does an autoscaler")


def check_ingress(document, objects, complain):
    for rule in document["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            service = path["backend"]["service"]
            ports = {
                port["name"]
                for other in objects
                if other["kind"] == "Service" and other["metadata"]["name"] == service["name"]
                for port in other["spec"]["ports"]
            }
            if service["port"]["name"] not in ports:
                complain(f"Ingress {document['metadata']['name']}: there is no {service['name']}:{service['port']['name']}")


def check_policy(document, pods, complain):
    name, spec = document["metadata"]["name"], document["spec"]
    if spec["podSelector"] and not selected(spec["podSelector"], pods):
        complain(f"NetworkPolicy {name} selects no pod")
    targets = selected(spec["podSelector"], pods)
    for rule in spec.get("ingress", []):
        check_ports(name, rule, targets, complain)
    for direction, end in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction, []):
            for peer in rule.get(end, []):
                if "ipBlock" in peer:
                    check_block(name, peer["ipBlock"], complain)
                chosen = selected(peer["podSelector"], pods) if "podSelector" in peer else None
                if chosen == []:
                    complain(f"NetworkPolicy {name} names a peer that is no pod")
                if direction == "egress" and chosen:
                    check_ports(name, rule, chosen, complain)


def check_block(name, block, complain):
    """As the API server reads addresses, which refuses the whole policy otherwise. To it IPv4 that is
    written as IPv6 (`::ffff:0:0/96`) is within no network of IPv6."""
    whole = ipaddress.ip_network(block["cidr"])
    for text in block.get("except", []):
        part = ipaddress.ip_network(text)
        is_mapped = part.version == 6 and part.network_address.ipv4_mapped is not None
        if is_mapped or part.version != whole.version or part == whole or not part.subnet_of(whole):
            complain(f"NetworkPolicy {name}: {text} is no part of {whole}")


def check_ports(name, rule, pods, complain):
    for port in rule.get("ports", []):
        if pods and not any(has_port(pod, port["port"]) for pod in pods):
            complain(f"NetworkPolicy {name}: no pod has port {port['port']}")


def selected(selector, pods):
    return [pod for pod in pods if selects(selector, pod["spec"]["template"]["metadata"].get("labels", {}))]


def selects(selector, labels):
    for expression in selector.get("matchExpressions", []):
        if expression["operator"] != "In":
            raise ValueError(f"a selector with {expression['operator']}, which nothing here uses")
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return selector.get("matchLabels", {}).items() <= labels.items()


def has_port(pod, port):
    return any(
        port in (known["name"], known["containerPort"])
        for container in containers(pod)
        for known in container.get("ports", [])
    )


def exists(objects, kind, name):
    return any(document["kind"] == kind and document["metadata"]["name"] == name for document in objects)
