#!/bin/sh
# Installs what `make test-containers` runs: podman-compose into an environment of its own, and Debian's
# podman, runc and debootstrap, which takes root.
# Usage: install.sh UV FOLDER
set -eu
uv=$1
folder=$2
test -x "$folder/bin/python" || "$uv" venv --quiet --no-project --python .venv/bin/python "$folder"
VIRTUAL_ENV="$folder" "$uv" pip install --quiet --group containers
missing=
for program in podman:podman runc:runc debootstrap:debootstrap iptables:iptables catatonit:catatonit \
  netavark:/usr/lib/podman/netavark aardvark-dns:/usr/lib/podman/aardvark-dns; do
  command -v "${program#*:}" >/dev/null || missing="$missing ${program%%:*}"
done
test -n "$missing" || exit 0
if test "$(id -u)" != 0 || ! command -v apt-get >/dev/null; then
  echo "these are not installed, and only root on Debian can install them here:$missing" >&2
  exit 0
fi
echo "installing$missing"
install="apt-get -qq install --yes --no-install-recommends"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$install $missing >/dev/null || { apt-get -qq update && $install $missing >/dev/null; }
