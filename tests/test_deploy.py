"""The files in deploy/ agree with the server: its metrics, routes, settings and limits."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import __version__, create_app
from app.api.metrics import announce
from app.config import Settings
from tests.conftest import FakeEncoder

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
OTHERS = {"up"}  # Prometheus' own
SCALE = yaml.safe_load((DEPLOY / "compose.scale.yaml").read_text())
NGINX = (DEPLOY / "nginx.conf").read_text()


def manifests() -> Iterator[dict[str, Any]]:
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        yield from yaml.safe_load_all(file.read_text())


def manifest(kind: str) -> dict[str, Any]:
    return next(one for one in manifests() if one["kind"] == kind)


@pytest.fixture(scope="module")
def samples() -> dict[str, set[str]]:
    """The labels of each metric in GET /metrics, once there was a request."""
    app = create_app(Settings(model_name="fake"), FakeEncoder())
    client = app.test_client()
    assert client.post("/api/embed", json={"input": "a"}).status_code == 200
    announce(app)
    found: dict[str, set[str]] = {}
    for line in client.get("/metrics").text.splitlines():
        if not line.startswith("#"):
            name, labels = re.match(r"(\w+)(?:\{(.*)\})? ", line).groups()
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels or ""))
    return found


def dashboard_queries() -> list[str]:
    panels = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def alert_queries() -> list[str]:
    groups = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("query", [*dashboard_queries(), *alert_queries()])
def test_every_metric_and_label_that_is_asked_for_exists(query, samples):
    asked = re.findall(r"(\w+)\{(.*?)\}", re.sub(r"[$]__\w+", "5m", query))
    assert asked
    for name, matchers in asked:
        assert name in samples or name in OTHERS, name
        # Prometheus adds the job and the instance.
        known = samples.get(name, set()) | {"job", "instance"}
        assert {label for label, _ in re.findall(r"(\w+)(!?=~?)", matchers)} <= known, matchers
    bare = re.sub(r'"[^"]*"', "", query)
    assert set(re.findall(r"\bembed_\w+", bare)) <= {name for name, _ in asked}
    labels = {"job", "instance"}.union(*(samples.get(name, set()) for name, _ in asked))
    for grouped in re.findall(r"\bby \((.*?)\)", query):
        assert set(grouped.split(", ")) <= labels, grouped


def test_every_metric_of_ours_is_on_the_dashboard(samples):
    shown = set(re.findall(r"\bembed_\w+", " ".join(dashboard_queries())))
    stems = {re.sub("_(total|bucket|sum|count|created)$", "", name) for name in samples}
    assert stems == {re.sub("_(total|bucket|sum|count)$", "", name) for name in shown}


def test_the_routes_left_out_of_the_queries_exist():
    routes = {rule.rule for rule in create_app(Settings(), FakeEncoder()).url_map.iter_rules()}
    for query in [*dashboard_queries(), *alert_queries()]:
        for named in re.findall(r'route!~"(.*?)"', query):
            assert set(named.split("|")) <= routes


def test_the_alert_on_the_queue_follows_the_default_limit():
    assert any(f"> {Settings.queue_tokens * 4 // 5}\n" in query for query in alert_queries())
    assert str(Settings.queue_tokens) in (DEPLOY / "grafana.json").read_text()


def nginx_value(directive: str) -> str:
    return re.search(rf"^\s*{directive} ([^;]+);", NGINX, re.MULTILINE)[1]


def test_nginx_takes_and_waits_for_what_the_server_does():
    assert nginx_value("client_max_body_size") == f"{Settings.max_body_bytes // 2**20}m"
    assert nginx_value("proxy_next_upstream_timeout") == f"{Settings.request_timeout}s"
    assert int(nginx_value("proxy_read_timeout")[:-1]) >= Settings.request_timeout + 60
    assert int(nginx_value("worker_shutdown_timeout")[:-1]) > 60


def test_nginx_knows_each_replica_twice():
    replicas = {f"{name}:8000" for name in SCALE["services"] if name.startswith("embed-")}
    for upstream in re.findall(r"upstream \w+ \{(.*?)\}", NGINX, re.DOTALL):
        assert set(re.findall(r"server (\S+)", upstream)) == replicas
    assert {host.split(":")[0] + ":8000" for host in SCALE["services"]["proxy"]["extra_hosts"]} == replicas


def test_a_replica_is_what_the_one_server_is():
    """But for its port, its processors and its address."""
    [single] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"].values()
    for name, replica in SCALE["services"].items():
        if name.startswith("embed-"):
            replica = replica | {
                "build": ".",
                "volumes": [v.replace("../", "./") for v in replica["volumes"]],
            }
            alone = {key: value for key, value in single.items() if key not in ("ports", "cpus")}
            assert {key: replica[key] for key in replica if key not in ("cpuset", "networks")} == alone


def pods() -> list[dict[str, Any]]:
    return [manifest(kind)["spec"]["template"] for kind in ("Deployment", "Job")]


def test_pods_run_this_version_as_nobody_in_particular():
    dockerfile = (ROOT / "Dockerfile").read_text()
    for pod in pods():
        spec = pod["spec"]
        [container] = spec["containers"]
        assert container["image"].endswith(f"bge-m3-server:{__version__}")
        user = f"USER {spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"
        assert user in dockerfile
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        assert mounts == {volume["name"] for volume in spec["volumes"]}


def test_a_pod_has_time_for_its_open_requests():
    spec = manifest("Deployment")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > before + 60


def test_the_settings_of_a_pod_can_be_read():
    [container] = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    environ = {one["name"]: one["value"] for one in container["env"]}
    settings = Settings.from_env(environ)
    assert settings.api_keys_file == Path("/run/secrets/embed/keys")
    assert settings.open_paths == ("docs", "metrics")
    used = {name for name in environ if name.startswith("EMBED_")}
    assert used <= {field.metadata["env"] for field in Settings.__dataclass_fields__.values()}
    routes = {rule.rule for rule in create_app(Settings(), FakeEncoder()).url_map.iter_rules()}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in routes


def test_what_selects_pods_finds_them():
    server, download = (pod["metadata"]["labels"].items() for pod in pods())
    for one in manifests():
        spec = one["spec"]
        if one["kind"] == "Service":
            assert spec["selector"].items() <= server
        elif one["kind"] in ("Deployment", "PodDisruptionBudget"):
            assert spec["selector"]["matchLabels"].items() <= server
        elif one["kind"] == "NetworkPolicy":
            wanted = spec["podSelector"]["matchLabels"].items()
            assert (wanted <= server) != (wanted <= download)
        elif one["kind"] == "HorizontalPodAutoscaler":
            assert spec["scaleTargetRef"]["name"] == manifest("Deployment")["metadata"]["name"]
