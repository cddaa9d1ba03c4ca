#!/usr/bin/env bash
# The files of this folder beside what reads them: make lint-deploy.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

command -v promtool >/dev/null || {
  echo "promtool is missing: apt-get install prometheus (Debian), or take the one in a release of Prometheus" >&2
  exit 1
}

.venv/deploy/bin/kubernetes-validate --strict --quiet deploy/kubernetes/*.yaml

# A RayJob by its own schema, then the pods that the operator makes of it.
.venv/bin/python - <<'END' >"$scratch/ray.yaml"
import json, pathlib, jsonschema, yaml
schema = json.loads(pathlib.Path("deploy/rayjob.schema.json").read_text())

def pod(name, template, *containers):
    spec = template["spec"] | {"containers": [*template["spec"]["containers"], *containers]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **template["metadata"]}, "spec": spec}

found = []
for file in sorted(pathlib.Path("deploy/ray").glob("*.yaml")):
    for one in yaml.safe_load_all(file.read_text()):
        if one["kind"] != "RayJob":
            found.append(one)
            continue
        jsonschema.Draft202012Validator(schema).validate(one)
        cluster = one["spec"]["rayClusterSpec"]
        options = cluster["autoscalerOptions"]
        names = ("command", "args", "env", "envFrom", "image", "resources", "securityContext", "volumeMounts")
        autoscaler = {"name": "autoscaler"} | {name: options[name] for name in names if name in options}
        found.append(pod("submitter", one["spec"]["submitterPodTemplate"]))
        found.append(pod("head", cluster["headGroupSpec"]["template"], autoscaler))
        found += [pod(group["groupName"], group["template"]) for group in cluster["workerGroupSpecs"]]
print(yaml.safe_dump_all(found))
END
.venv/deploy/bin/kubernetes-validate --strict --quiet "$scratch/ray.yaml"

.venv/bin/python - <<'END'
import pathlib, re, compose_spec, yaml
text = pathlib.Path("deploy/compose.scale.yaml").read_text()
text = re.sub(r"[$]\{\w+:-(.*?)\}", r"\1", text)
text = re.sub(r"[$]\{\w+:\?.*?\}", "0-15", text)
# Dumped anew: the checker knows no <<.
compose_spec.PyCompose.from_yaml(yaml.safe_dump(yaml.safe_load(text))).validate()
END

promtool check rules deploy/alerts.yaml
promtool test rules deploy/alerts.test.yaml

# The dashboard's queries, as rules.
.venv/bin/python - <<'END' >"$scratch/dashboard.yaml"
import json, pathlib, re
panels = json.loads(pathlib.Path("deploy/grafana.json").read_text())["panels"]
queries = [target["expr"] for panel in panels for target in panel["targets"]]
rules = [
    {"record": f"panel{number}", "expr": re.sub(r"\[[$]__\w+\]", "[5m]", query)}
    for number, query in enumerate(queries)
]
print(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
END
promtool check rules "$scratch/dashboard.yaml"

if command -v nginx >/dev/null; then
  sed "s#/tmp/#$scratch/#; s/embed-[0-9]:/127.0.0.1:/" deploy/nginx.conf >"$scratch/nginx.conf"
  nginx -t -q -p "$scratch" -c "$scratch/nginx.conf" -e /dev/stderr
else
  echo "not checked: nginx.conf, nginx is not installed (Debian: apt-get install nginx-light)"
fi
