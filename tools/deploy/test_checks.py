"""The checks find what they are for. Run by tools/check-deploy."""

from __future__ import annotations

import copy
import unittest

from . import consistency, examples, manifests, rbac, references


def deployment():
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n"},
        "spec": {
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "securityContext": {"runAsNonRoot": True},
                    "containers": [{
                        "name": "c",
                        "image": "registry.example:5000/i:1",
                        "ports": [{"name": "http", "containerPort": 80}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
                        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
                        "securityContext": {
                            "readOnlyRootFilesystem": True,
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }],
                    "volumes": [{"name": "data", "emptyDir": {}}],
                },
            },
        },
    }


def service(selector="d", port="http"):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {"selector": {"app": selector}, "ports": [{"name": "web", "port": 80, "targetPort": port}]},
    }


def roles():
    return [
        {"kind": "ServiceAccount", "metadata": {"name": "a", "namespace": "ci"}},
        {
            "kind": "ClusterRole",
            "metadata": {"name": "r"},
            "rules": [
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch", "create", "patch"]},
                {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "create", "patch"]},
            ],
        },
        {
            "kind": "RoleBinding",
            "metadata": {"name": "b", "namespace": "n"},
            "roleRef": {"name": "r"},
            "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "ci"}],
        },
    ]


class Rbac(unittest.TestCase):
    def complaints(self, change=lambda rbac, objects: None):
        found, given, objects = [], roles(), [deployment(), service()]
        change(given, objects)
        rbac.check(given, objects, found.append)
        return found

    def test_equal_rights_pass(self):
        self.assertEqual(self.complaints(), [])

    def test_a_new_kind_is_missed(self):
        (said,) = self.complaints(lambda _, objects: objects.append(
            {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "p", "namespace": "n"}}))
        self.assertIn("may not create, get, patch policy/poddisruptionbudgets", said)

    def test_a_right_too_much_is_found(self):
        for verb, resource in (("delete", "services"), ("get", "secrets")):
            (said,) = self.complaints(lambda given, _: given[1]["rules"].append(  # noqa: B023
                {"apiGroups": [""], "resources": [resource], "verbs": [verb]}))
            self.assertIn(f"may {verb} {resource}, which nothing needs", said)

    def test_waiting_for_a_deployment_takes_watch(self):
        (said,) = self.complaints(lambda given, _: given[1]["rules"][0]["verbs"].remove("watch"))
        self.assertIn("may not watch apps/deployments", said)

    def test_any_namespace_is_too_many(self):
        def change(given, objects):
            objects.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})
            given[1]["rules"].append({"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "patch"]})
        (said,) = self.complaints(change)
        self.assertIn("any namespace", said)

    def test_the_binding_is_in_the_namespace_and_of_an_account_there_is(self):
        for change in (
            lambda given, _: given[2].update(kind="ClusterRoleBinding"),
            lambda given, _: given[2]["metadata"].update(namespace="other"),
            lambda given, _: given[2]["roleRef"].update(name="other"),
            lambda given, _: given[2]["subjects"][0].update(name="other"),
            lambda given, _: given.pop(),
        ):
            self.assertEqual(len(self.complaints(change)), 1)


class References(unittest.TestCase):
    def complaints(self, *objects):
        found = []
        references.check(list(objects), {"CLOUDSERVE_LOG"}, found.append)
        return found

    def test_what_fits_passes(self):
        self.assertEqual(self.complaints(deployment(), service()), [])

    def test_a_service_that_reaches_nothing(self):
        self.assertIn("selects no pod", self.complaints(deployment(), service(selector="x"))[0])
        self.assertIn("no container has port", self.complaints(deployment(), service(port="x"))[0])

    def test_a_policy_that_no_cluster_takes_or_that_selects_nothing(self):
        def policy(excepted="10.0.0.0/8", cidr="0.0.0.0/0", component="d", port="http"):
            chosen = {"matchExpressions": [{"key": "app", "operator": "In", "values": [component, "other"]}]}
            return {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": "p", "namespace": "n"},
                "spec": {
                    "podSelector": chosen,
                    "ingress": [{"from": [{"podSelector": chosen}], "ports": [{"port": port}]}],
                    "egress": [{"to": [{"ipBlock": {"cidr": cidr, "except": [excepted]}}]}],
                },
            }

        self.assertEqual(self.complaints(deployment(), policy()), [])
        self.assertEqual(self.complaints(deployment(), policy("fc00::/7", "::/0")), [])
        for excepted, cidr in (("::ffff:0:0/96", "::/0"), ("fc00::/7", "0.0.0.0/0"), ("10.0.0.0/8", "10.0.0.0/8"),
                               ("10.0.0.0/8", "10.1.0.0/16")):
            (said,) = self.complaints(deployment(), policy(excepted, cidr))
            self.assertIn(f"{excepted} is no part of {cidr}", said)
        self.assertIn("selects no pod", self.complaints(deployment(), policy(component="x"))[0])
        self.assertIn("no pod has port x", self.complaints(deployment(), policy(port="x"))[0])

    def test_an_autoscaler_that_scales_nothing_or_is_not_alone(self):
        def autoscaler(name):
            return {
                "apiVersion": "autoscaling/v2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "h", "namespace": "n"},
                "spec": {"scaleTargetRef": {"kind": "Deployment", "name": name}},
            }

        self.assertEqual(self.complaints(deployment(), autoscaler("d")), [])
        self.assertIn("which is not there", self.complaints(deployment(), autoscaler("x"))[0])
        fixed = deployment()
        fixed["spec"]["replicas"] = 2
        self.assertIn("so does an autoscaler", self.complaints(fixed, autoscaler("d"))[0])

    def test_pods_that_may_too_much_or_do_not_start(self):
        def container(pod):
            return pod["spec"]["template"]["spec"]["containers"][0]

        for change in (
            lambda pod: pod["spec"]["template"]["spec"].pop("automountServiceAccountToken"),
            lambda pod: pod["spec"]["template"]["spec"]["securityContext"].clear(),
            lambda pod: container(pod)["securityContext"].update(readOnlyRootFilesystem=False),
            lambda pod: container(pod)["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
            lambda pod: container(pod)["readinessProbe"]["httpGet"].update(port="other"),
            lambda pod: container(pod)["resources"].pop("limits"),
            lambda pod: container(pod).update(image="registry.example:5000/i"),
            lambda pod: container(pod).update(image="i:latest"),
            lambda pod: container(pod).update(imagePullPolicy="Always"),
            lambda pod: container(pod).update(env=[{"name": "CLOUDSERVE_LGO", "value": "x"}]),
            lambda pod: container(pod).update(envFrom=[{"configMapRef": {"name": "none"}}]),
            lambda pod: container(pod).update(args=["--username=u", "--password=p"]),
            lambda pod: container(pod).update(startupProbe={"exec": {"command": ["sh", "-c", 'm --password "$P"']}}),
            lambda pod: container(pod).update(lifecycle={"preStop": {"exec": {"command": ["m", "--password", "$(P)"]}}}),
            lambda pod: container(pod)["volumeMounts"].append({"name": "none", "mountPath": "/x"}),
            lambda pod: pod["spec"]["template"]["spec"]["volumes"].append({"name": "unused", "emptyDir": {}}),
        ):
            pod = copy.deepcopy(deployment())
            change(pod)
            self.assertEqual(len(self.complaints(pod)), 1, self.complaints(pod))


    def test_a_pod_that_is_watched_where_callers_may_be_in_the_way(self):
        def complaints(probed="ops", scraped="81"):
            pod = copy.deepcopy(deployment())
            pod["spec"]["template"]["metadata"]["annotations"] = {"prometheus.io/port": scraped}
            container = pod["spec"]["template"]["spec"]["containers"][0]
            container["ports"].append({"name": "ops", "containerPort": 81})
            container["env"] = [{"name": "CLOUDSERVE_OPS_LISTEN", "value": "0.0.0.0:81"}]
            container["readinessProbe"]["httpGet"]["port"] = probed
            found = []
            references.check([pod], {"CLOUDSERVE_OPS_LISTEN"}, found.append)
            return found

        self.assertEqual(complaints(), [])
        self.assertIn("readinessProbe asks port http", complaints(probed="http")[0])
        self.assertIn("scraped at port 80", complaints(scraped="80")[0])

    def test_a_pod_that_is_ended_while_it_drains(self):
        def complaints(grace, drain_ms, notice_ms="0", image="i"):
            pod = copy.deepcopy(deployment())
            spec = pod["spec"]["template"]["spec"]
            spec["terminationGracePeriodSeconds"] = grace
            container = spec["containers"][0]
            container["image"] = f"registry.example:5000/{image}:1"
            container["envFrom"] = [{"configMapRef": {"name": "settings"}}]
            container["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", "10"]}}}
            data = {"CLOUDSERVE_DRAIN_TIMEOUT_MS": drain_ms, "CLOUDSERVE_DRAIN_NOTICE_MS": notice_ms}
            config = {"kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "n"}, "data": data}
            found = []
            references.check([pod, config], set(data), found.append)
            return found

        self.assertEqual(complaints(145, "120000"), [])
        self.assertEqual(complaints(145, "120000", image="cloudserve-sandbox"), [])
        self.assertEqual(complaints(265, "120000", image="cloudserve-gateway"), [])
        for given in ((144, "120000"), (145, "121000"), (145, "120000", "5000"),
                      (264, "120000", "0", "cloudserve-gateway"), (264, "120000", "0", "cloudserve-all")):
            (said,) = complaints(*given)
            self.assertIn("to end, and its pod has less", said)

    def test_a_job_of_another_image_or_without_its_volume(self):
        def complaints(change=lambda spec: None):
            job = {**deployment(), "kind": "Job"}
            spec = job["spec"]["template"]["spec"]
            spec["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "p"}}]
            change(spec)
            found = []
            claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "p", "namespace": "n"}}
            references.check_job([job], [deployment(), claim], set(), found.append)
            return found

        self.assertEqual(complaints(), [])
        (said,) = complaints(lambda spec: spec["containers"][0].update(image="registry.example:5000/i:2"))
        self.assertIn("d runs registry.example:5000/i:2, and the pods ['registry.example:5000/i:1']", said)
        (said,) = complaints(lambda spec: spec["volumes"][0]["persistentVolumeClaim"].update(claimName="q"))
        self.assertIn("there is no claim q", said)


class Documents(unittest.TestCase):
    def test_what_is_shown_as_code_is_named(self):
        names = {"CLOUDSERVE_LOG", "CLOUDSERVE_NPM", "not_found", "--file", "--env-file", "timeoutMs"}
        told = "`LOG`, CLOUDSERVE_NPM, `CLOUDSERVE_NPM_CACHE`\n`GET /x`: 404 `not_found`; `set --env-file FILE`\ntimeoutMs"
        self.assertEqual(consistency.named(names, told), {"CLOUDSERVE_LOG", "not_found", "--env-file"})

    def test_something_of_each_kind_is_found(self):
        found = consistency.settings_and_codes() | consistency.client_options()
        some = {
            "CLOUDSERVE_DATA_DIR", "CLOUDSERVE_CONFIG", "CLOUDSERVE_JWT_SECRET", "CLOUDSERVE_API_KEY", "memoryMb",
            "versions_kept", "not_active", "crashed", "validation_error", "conflict", "native_addon", "--no-wait",
        }
        self.assertEqual(some - found, set())


class Alerts(unittest.TestCase):
    def test_an_alert_that_can_never_fire(self):
        for expression, said in (
            ('rate(cloudserve_gateway_refusals_total{code=~"unavailable|not_active"}[5m]) > 0', []),
            ("cloudserve_gateway_duration_seconds_bucket", []),
            ("cloudserve_gateway_refusal_total > 0", ["nobody exports"]),
            ('cloudserve_sandbox_workers{state="raedy"} == 0', ["state is raedy"]),
            ('cloudserve_sandbox_workers{code="ready"} == 0', ["a label code"]),
            ('cloudserve_sandbox_processes{state="ready"} == 0', ["a label state"]),
        ):
            found = []
            consistency.check_expression(expression, found.append)
            self.assertEqual(len(found), len(said), (expression, found))
            for text, part in zip(found, said):
                self.assertIn(part, text)


class Examples(unittest.TestCase):
    def complaints(self, scripts_of, document):
        found = []
        scripts_of(document, found.append)
        return found

    def test_a_workflow(self):
        def workflow(**step):
            return {True: {"push": {}}, "jobs": {"j": {"runs-on": "x", "steps": [step]}}}

        self.assertEqual(self.complaints(examples.github_scripts, workflow(run="true")), [])
        for bad in (workflow(), workflow(uses="a/b@v1", run="true"), workflow(uses="a/b"), workflow(run="true", runs=1),
                    {True: {"push": {}}}, {"jobs": workflow(run="true")["jobs"]}):
            self.assertEqual(len(self.complaints(examples.github_scripts, bad)), 1, bad)

    def test_a_pipe_fails_with_any_part_of_it(self):
        for script, others, count in (
            ("deploy | tee out", {}, 1),
            ("deploy |& tee out", {}, 1),
            ("deploy | tee out", {"shell": "bash"}, 0),
            ("deploy | tee out", {"shell": "sh"}, 1),
            ("set -euo pipefail\ndeploy | tee out", {}, 0),
            ("# a | b\ndeploy || grep 'a|b' >| out", {}, 0),
        ):
            step = {"run": script, **others}
            workflow = {True: {"push": {}}, "jobs": {"j": {"runs-on": "x", "steps": [step]}}}
            self.assertEqual(len(self.complaints(examples.github_scripts, workflow)), count, step)

    def test_a_pipeline(self):
        good = {"j": {"stage": "deploy", "script": ["true"]}}
        self.assertEqual(self.complaints(examples.gitlab_scripts, good), [])
        for bad in ({"j": {"stage": "none", "script": ["true"]}}, {"j": {"script": "true"}},
                    {"j": {"script": ["true"], "scripts": []}}):
            self.assertEqual(len(self.complaints(examples.gitlab_scripts, bad)), 1, bad)

    def test_nothing_is_written_into_the_project(self):
        for script, count in (
            ('curl -fsSL "$URL" -o cloudserve', 1),
            ('curl "$URL" --output=./cloudserve', 1),
            ("cloudserve deploy --json | tee deploy.json", 1),
            ("a && tee -a one two; b", 2),
            ('a > "$GITHUB_WORKSPACE/out"', 1),
            ("a >> out 2>&1", 1),
            ("{ a; mv /tmp/x x; }", 1),
            ("a \\\n  > out", 1),
            ('curl "$URL" -o "$RUNNER_TEMP/x"\nchmod +x "$RUNNER_TEMP/x"', 0),
            ('a | tee -a "$RUNNER_TEMP/out" > /dev/null', 0),
            ('a 2>&1 >> "${GITHUB_STEP_SUMMARY}"', 0),
            ("x=$(mktemp)\ncp a $x", 0),
            ("a < in; echo 'b > c' # > d", 0),
        ):
            found = []
            examples.check_writes(script, found.append)
            self.assertEqual(len(found), count, (script, found))
        for path, scripts_of in ((examples.GITHUB, examples.github_scripts), (examples.GITLAB, examples.gitlab_scripts)):
            found = []
            (document,) = manifests.documents(consistency.text_of(path))
            for script in scripts_of(document, found.append):
                examples.check_writes(script, found.append)
            self.assertEqual(found, [], path)

    def test_commands(self):
        told = "| `deploy [PATH]` | it takes `--json` |\n| `admin import FILE` | |"
        for script, count in (("./cloudserve deploy --json | x --y", 0), ("a || { cloudserve undo; }", 1),
                              ("cloudserve deploy --jsons", 1), ("cloudserve admin import /x", 0),
                              ("cloudserve admin restore /x", 1), ("cloudserve admin import --force", 1)):
            found = []
            examples.check_commands(script, told, found.append)
            self.assertEqual(len(found), count, script)
