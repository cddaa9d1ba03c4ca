"""The files in deploy/ agree with the server: its metrics, routes, settings and limits."""

import copy
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app import __version__, create_app
from app.api.metrics import announce
from app.cli.embed import embed
from app.config import Settings
from tests.conftest import FakeEncoder

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
OTHERS = {"up"}  # Prometheus' own
SCALE = yaml.safe_load((DEPLOY / "compose.scale.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
NGINX = (DEPLOY / "nginx.conf").read_text()
RAYJOB, RAY_POLICY = yaml.safe_load_all((DEPLOY / "ray" / "rayjob.yaml").read_text())
RAY = RAYJOB["spec"]["rayClusterSpec"]
HEAD, [WORKERS] = RAY["headGroupSpec"], RAY["workerGroupSpecs"]
RAYJOB_SCHEMA = jsonschema.Draft202012Validator(json.loads((DEPLOY / "rayjob.schema.json").read_text()))


def manifests() -> Iterator[dict[str, Any]]:
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        yield from yaml.safe_load_all(file.read_text())


def manifest(kind: str) -> dict[str, Any]:
    return next(one for one in manifests() if one["kind"] == kind)


@pytest.fixture(scope="module")
def samples() -> dict[str, set[str]]:
    """The labels of each metric in GET /metrics after a request."""
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
    """Except for its port, its processors and its address."""
    [single] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"].values()
    for name, replica in SCALE["services"].items():
        if name.startswith("embed-"):
            replica = replica | {
                "build": {**replica["build"], "context": "."},
                "volumes": [v.replace("../", "./") for v in replica["volumes"]],
            }
            alone = {key: value for key, value in single.items() if key not in ("ports", "cpus")}
            assert {key: replica[key] for key in replica if key not in ("cpuset", "networks")} == alone


def pods() -> list[dict[str, Any]]:
    return [manifest(kind)["spec"]["template"] for kind in ("Deployment", "Job")]


def ray_pods() -> list[dict[str, Any]]:
    return [RAYJOB["spec"]["submitterPodTemplate"], HEAD["template"], WORKERS["template"]]


CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def test_pods_run_this_version_as_nobody_in_particular():
    for pod, image in [(pod, "server") for pod in pods()] + [(pod, "server-bulk") for pod in ray_pods()]:
        spec = pod["spec"]
        [container] = spec["containers"]
        assert container["image"] == f"bge-m3-{image}:{__version__}"
        user = f"USER {spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"
        assert user in DOCKERFILE
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["enableServiceLinks"] is False
        assert container["securityContext"] == CONFINED
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


def pins(name: str) -> dict[str, str]:
    lines = [line for line in (ROOT / name).read_text().splitlines() if "==" in line]
    return dict(line.split("==") for line in lines)


def test_a_rayjob_has_the_fields_that_kuberay_knows():
    RAYJOB_SCHEMA.validate(RAYJOB)


def ray_fields(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of KubeRay's own fields, without those of Kubernetes and the parameters of `ray start`."""
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from ray_fields(one, (*path, number))
    elif isinstance(value, dict):
        for name, one in value.items():
            yield (*path, name)
            if name not in {
                "metadata",
                "template",
                "submitterPodTemplate",
                "resources",
                "securityContext",
                "volumeMounts",
                "rayStartParams",
            }:
                yield from ray_fields(one, (*path, name))


@pytest.mark.parametrize("path", list(ray_fields(RAYJOB)), ids=lambda path: ".".join(map(str, path)))
def test_a_misspelt_field_of_a_rayjob_is_refused(path):
    job = copy.deepcopy(RAYJOB)
    *above, name = path
    place = job
    for step in above:
        place = place[step]
    place[f"{name}s"] = place.pop(name)
    with pytest.raises(jsonschema.ValidationError):
        RAYJOB_SCHEMA.validate(job)


def test_the_nodes_have_the_ray_of_the_requirements():
    wanted = pins("requirements-bulk.txt")["ray[data]"]
    assert RAY["rayVersion"] == wanted == pins("requirements-ray.txt")["ray[default]"]
    assert "-r requirements-bulk.lock -r requirements-ray.lock" in DOCKERFILE


def test_the_requirements_of_an_image_name_nothing_twice():
    together = [pins(f"requirements{name}.txt") for name in ("", "-build", "-bulk", "-ray")]
    names = [name for one in together for name in one]
    assert len(names) == len(set(names))


def test_without_a_target_the_image_is_the_server():
    stages = re.findall(r"^FROM (.*)$", DOCKERFILE, re.MULTILINE)
    assert [stage.split()[-1] for stage in stages] == [*("base", "code", "slim"), *("serve", "bulk", "serve")]
    [service] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"].values()
    assert service["build"]["target"] == "${BUILD_TARGET:-serve}"
    package = (ROOT / "package.sh").read_text()
    assert "target=${BUILD_TARGET:-serve}\n" in package
    assert 'build --target "$target" ' in package


def test_every_image_runs_as_the_same_user():
    stages = re.split(r"^FROM .* AS ", DOCKERFILE, flags=re.MULTILINE)
    users = {stage.split()[0]: re.findall("^USER (.*)$", stage, re.MULTILINE)[-1:] for stage in stages}
    assert [users[name] for name in ("slim", "serve", "bulk")] == [["10001:10001"]] * 3


def test_what_the_image_copies_is_let_in():
    copied = " ".join(re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)).split()
    let_in = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(copied) == set(let_in)


def test_the_images_below_can_be_pinned_by_digest():
    assert re.match(r"(#.*\n)*ARG PYTHON_IMAGE=python:\S+\nFROM [$]\{PYTHON_IMAGE\} AS base\n", DOCKERFILE)
    assert "--build-arg PYTHON_IMAGE " in (ROOT / "package.sh").read_text()
    assert SCALE["services"]["embed-1"]["build"]["args"] == ["PYTHON_IMAGE"]
    assert SCALE["services"]["proxy"]["image"].startswith("${NGINX_IMAGE:-")


def test_the_ray_cluster_has_room_for_the_actors_that_are_asked_for():
    flask, name, *arguments = shlex.split(RAYJOB["spec"]["entrypoint"])
    assert (flask, name) == ("flask", "embed")
    asked = embed.make_context("embed", arguments).params
    assert asked["address"] == ""  # RAY_ADDRESS
    assert asked["source"].startswith("s3://")
    assert asked["out"].startswith("s3://")
    [worker] = WORKERS["template"]["spec"]["containers"]
    cpus = int(worker["resources"]["limits"]["cpu"])
    assert cpus <= 16, "an encoder takes no more, a worker would have several"
    assert asked["cpus"] in (None, cpus)
    assert asked["actors"] == WORKERS["maxReplicas"]
    assert RAY["enableInTreeAutoscaling"]
    assert HEAD["rayStartParams"]["num-cpus"] == "0"
    assert 1 <= WORKERS["minReplicas"] <= WORKERS["replicas"] <= WORKERS["maxReplicas"]


def test_the_nodes_of_the_ray_cluster_are_alike_and_their_own_masters():
    [head], [worker] = (group["template"]["spec"]["containers"] for group in (HEAD, WORKERS))
    for container in (head, worker):
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["readinessProbe"]["httpGet"] == container["livenessProbe"]["httpGet"]
    assert head["env"] == worker["env"]
    assert head["envFrom"] == worker["envFrom"]
    settings = Settings.from_env({one["name"]: one["value"] for one in worker["env"]})
    assert settings.model_path == Path("models/bge-m3")
    assert RAY["autoscalerOptions"]["securityContext"] == CONFINED
    claims = [
        volume["persistentVolumeClaim"]
        for pod in (HEAD["template"], WORKERS["template"])
        for volume in pod["spec"]["volumes"]
        if volume["name"] == "model"
    ]
    claim = manifest("PersistentVolumeClaim")["metadata"]["name"]
    assert claims == [{"claimName": claim, "readOnly": True}] * 2
    [cache] = [mount for mount in worker["volumeMounts"] if mount["name"] == "cache"]
    assert f"ENV EMBED_CACHE_DIR={cache['mountPath']}\n" in DOCKERFILE


def test_nobody_else_reaches_the_ray_cluster():
    chosen = RAY_POLICY["spec"]["podSelector"]["matchLabels"]
    own, operator = RAY_POLICY["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": chosen}}]}
    ports = [port for one in HEAD["template"]["spec"]["containers"] for port in one["ports"]]
    [dashboard] = [port["containerPort"] for port in ports if port["name"] == "dashboard"]
    assert operator["ports"] == [{"port": dashboard, "protocol": "TCP"}]
    others = {frozenset(pod["metadata"]["labels"].items()) for pod in pods()}
    for pod in ray_pods():
        labels = pod["metadata"]["labels"].items()
        assert chosen.items() <= labels
        assert "app.kubernetes.io/name" not in pod["metadata"]["labels"]  # KubeRay's
        assert not any(other <= labels for other in others)
