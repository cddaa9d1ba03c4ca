#!/usr/bin/env bash
# Build the image and save it for a host without internet, as dist/bge-m3-server-<version>.tar.gz. With
# BUILD_TARGET=slim it is the smaller image, which makes no exports: dist/bge-m3-server-slim-<version>.tar.gz.
# DOCKER names the engine's command, TORCH_INDEX another place for torch, DIST another folder, PYTHON_IMAGE the
# image that it is built on, to pin it: python@sha256:... (see the Dockerfile).
set -euo pipefail
cd "$(dirname "$0")"

read -ra docker <<<"${DOCKER:-docker}"  # may be two words, like sudo docker
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' app/__init__.py)
[ -n "$version" ] || { echo "app/__init__.py has no __version__" >&2; exit 1; }
image=localhost/bge-m3-server  # the name in docker-compose.yaml
target=${BUILD_TARGET:-serve}
name=bge-m3-server-$([ "$target" = serve ] || echo "$target-")$version
archive=${DIST:-dist}/$name.tar.gz

export BUILDAH_FORMAT=docker  # podman's own format has no health check
"${docker[@]}" build --target "$target" --build-arg TORCH_INDEX --build-arg PYTHON_IMAGE \
  -t "$image:$version" -t "$image:latest" .

mkdir -p "$(dirname "$archive")"
partial=$archive.$$
trap 'rm -f "$partial"' EXIT
"${docker[@]}" save "$image:$version" "$image:latest" | gzip >"$partial"
mv "$partial" "$archive"

exports=''
[ "$target" != slim ] || exports='
     (with its exports: run flask model export on another machine first)'
# gunzip, because podman 4.3 stumbles over a compressed archive.
cat <<END
$archive is ready ($(du -h "$archive" | cut -f1)). On the host without internet, in a folder with
this archive and docker-compose.yaml:
  1. gunzip -c $(basename "$archive") | docker load
  2. put the model folder into models/, so that there is a models/bge-m3/config.json$exports
  3. docker-compose up -d --no-build
END
