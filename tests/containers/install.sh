#!/bin/sh
# Installs what `make test-containers` runs: podman-compose into an environment of its own, and Debian's
# podman, runc and debootstrap.
# Usage: install.sh UV FOLDER
set -eu
uv=$1
folder=$2
test -x "$folder/bin/python" || "$uv" venv --quiet --no-project --python .venv/bin/python "$folder"
VIRTUAL_ENV="$folder" "$uv" pip install --quiet --group containers
sh "$(dirname "$0")/packages.sh" podman:podman runc:runc debootstrap:debootstrap iptables:iptables \
  catatonit:catatonit netavark:/usr/lib/podman/netavark aardvark-dns:/usr/lib/podman/aardvark-dns
