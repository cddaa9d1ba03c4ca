#!/usr/bin/env bash
# The image as it is shipped: build it, save it, load it, run it on the demo model, stop it. Then the image slim,
# on exports that the full one has made.
# DOCKER names the engine's command (docker, else podman); compose is that command's own.
set -euo pipefail
cd "$(dirname "$0")/.."

passed=0 failed=0 container='' compose='' scratch=$(mktemp -d)
finish() {
  status=$?
  [ -z "$container" ] || $DOCKER rm -fv "$container" >/dev/null 2>&1 || true
  [ -z "$compose" ] || composed down -v >/dev/null 2>&1 || true
  rm -rf "$scratch"
  echo "$passed passed, $failed failed"
  exit $((status || failed))
}
trap finish EXIT

check() {  # check SENTENCE COMMAND...
  if "${@:2}"; then
    passed=$((passed + 1)) && echo "ok: $1"
  else
    failed=$((failed + 1)) && echo "FAILED: $1" && return 1
  fi
}

quietly() {  # quietly COMMAND...: what it prints is of interest if it fails
  "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2 && return 1; }
}

ask() {  # ask URL [JSON]: print the answer
  python3 -c '
import sys, urllib.request as http
body = [text.encode() for text in sys.argv[2:]] or [None]
request = http.Request(sys.argv[1], body[0], {"Content-Type": "application/json"})
print(http.build_opener(http.ProxyHandler({})).open(request, timeout=10).read().decode())' "$@"
}

state() { $DOCKER inspect -f "{{.State.$1}}" "$container"; }

ready() {
  local end=$((SECONDS + 120))
  until ask "$url/readyz" >"$scratch/answer" 2>&1; do
    if [ "$(state Running)" != true ] || [ $SECONDS -gt $end ]; then
      cat "$scratch/answer" >&2
      $DOCKER logs "$container" >&2
      return 1
    fi
    sleep 1
  done
}

healthy() {  # what the image's HEALTHCHECK runs
  local words=() word
  while read -r word; do words+=("$word"); done < <(
    $DOCKER inspect -f '{{range .Config.Healthcheck.Test}}{{println .}}{{end}}' "$container")
  $DOCKER exec "$container" "${words[@]:1}"
}

embeds() {  # embeds FILE: into which the vector goes
  ask "$url/api/embed" '{"input": "Where is the library?"}' | python3 -c '
import json, sys
[vector] = json.load(sys.stdin)["embeddings"]
assert len(vector) == 384 and abs(sum(x * x for x in vector) - 1) < 1e-3
print(vector)' >"$1"
}

confined() {  # confined UID
  $DOCKER exec "$container" python -c '
import os, sys
status = dict(line.split(":", 1) for line in open("/proc/1/status"))
assert status["Uid"].split() == [sys.argv[1]] * 4, status["Uid"]
assert int(status["CapBnd"], 16) == 0, status["CapBnd"]
assert int(status["NoNewPrivs"]) == 1
assert os.statvfs("/").f_flag & os.ST_RDONLY
assert os.statvfs("/app/models").f_flag & os.ST_RDONLY' "$1"
}

exited() { [ "$(state Running)" = false ] && [ "$(state ExitCode)" = 0 ]; }  # a killed one has 137

stops() { $DOCKER stop -t 70 "$container" && exited; }

starts() {  # starts IMAGE MODELS
  container=bge-m3-server-test-$$
  $DOCKER run -d --name "$container" -p 127.0.0.1::8000 -v "$2:/app/models:ro,z" \
    -e EMBED_MODEL_PATH=models/multilingual-e5-small -e EMBED_PRECISION=fp32 --user 23456:23456 --read-only --tmpfs /tmp \
    --cap-drop ALL --security-opt no-new-privileges "$1"
}

removed() { $DOCKER rm -fv "$container" >/dev/null && container=''; }

serves() {  # serves WHICH UID
  check "$1 becomes ready" ready || exit
  check "$1 passes its health check" healthy || true
  check "$1 turns a text into a vector" embeds "$scratch/vector of $1" || true
  check "$1 is user $2, on a read-only root, without capabilities" confined "$2" || true
}

packages() { DIST=$scratch/dist ./package.sh; }

loads() { gunzip -c "$scratch"/dist/bge-m3-server-*.tar.gz | $DOCKER load; }

leaves_nothing() {
  # shellcheck disable=SC2016
  printf '#!/bin/sh\n[ "$1" != save ] || { echo half; exit 1; }\n' >"$scratch/broken"
  chmod +x "$scratch/broken"
  ! DOCKER=$scratch/broken DIST=$scratch/none ./package.sh && [ -z "$(ls "$scratch/none")" ]
}

builds_slim() {  # in a format that has health checks, where podman builds
  BUILDAH_FORMAT=docker $DOCKER build --target slim --build-arg PYTHON_IMAGE -t "$slim" .
}

small() { [ "$($DOCKER image inspect -f '{{.Size}}' "$slim")" -lt 800000000 ]; }

exports() {  # what the full image makes for fp32, in the folder of models from which slim serves
  $DOCKER run --rm -v "$scratch/models:/app/models:z" --user "$(id -u):$(id -g)" localhost/bge-m3-server \
    flask model export models/multilingual-e5-small --precision fp32
}

names_what_is_missing() {
  $DOCKER run --rm -v "$scratch/models:/app/models:ro,z" "$slim" \
    flask model export models/multilingual-e5-small --precision fp32 >"$scratch/log" 2>&1 && return 1
  grep -q '^Error: .* flask model export .* with the full image' "$scratch/log" && ! grep -q Traceback "$scratch/log"
}

composed() { HOST_PORT=$port EMBED_MODEL_PATH=models/multilingual-e5-small $compose -p bge-m3-server-test "$@"; }

if [ -z "${DOCKER:-}" ]; then
  # A client without an engine behind it has a version, but no info.
  for DOCKER in docker podman ''; do
    [ -n "$DOCKER" ] && "$DOCKER" info >/dev/null 2>&1 && break
  done
  [ -n "$DOCKER" ] || { echo "skipped: neither docker nor podman has an engine here" && exit; }
fi
export DOCKER
[ -f models/multilingual-e5-small/config.json ] || make --no-print-directory models/multilingual-e5-small

check "package.sh builds the image and saves it" quietly packages || exit
check "the archive can be loaded" quietly loads || true
check "it brings the name in docker-compose.yaml" grep -q localhost/bge-m3-server:latest "$scratch/log" || true
check "package.sh leaves nothing where saving fails" quietly leaves_nothing || true

check "the image starts" quietly starts localhost/bge-m3-server "$PWD/models" || exit
url=http://$($DOCKER port "$container" 8000)
serves "the container" 23456
check "the container ends by itself after SIGTERM" quietly stops || true
removed

slim=localhost/bge-m3-server-slim
mkdir -p "$scratch/models/multilingual-e5-small"
(cd models/multilingual-e5-small && tar --exclude=./native --exclude=./openvino -cf - .) | tar -C "$scratch/models/multilingual-e5-small" -xf -
check "the image slim is built" quietly builds_slim || exit
check "it takes less than 0.8 GB" small || true
check "it says where exports are made" names_what_is_missing || true
check "the full image makes exports for it" quietly exports || exit
check "the image slim starts" quietly starts "$slim" "$scratch/models" || exit
url=http://$($DOCKER port "$container" 8000)
serves "the slim container" 23456
check "both give the same vector" cmp "$scratch/vector of the container" "$scratch/vector of the slim container" || true
check "the slim container ends by itself after SIGTERM" quietly stops || true
removed

for compose in "$DOCKER compose" "$DOCKER-compose" ''; do
  [ -n "$compose" ] && $compose version >/dev/null 2>&1 && break
done
[ -n "$compose" ] || { echo "not checked: docker-compose.yaml, there is no compose command" && exit; }
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
check "docker-compose.yaml starts the image" quietly composed up -d --no-build || exit
container=$(composed ps -q)
serves "the service" 10001
check "the service is stopped" quietly composed stop || true
check "the service has ended by itself" exited || true
