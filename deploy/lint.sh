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
