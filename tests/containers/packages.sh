#!/bin/sh
# Installs Debian's packages whose programs are missing, which takes root.
# Usage: packages.sh PACKAGE:PROGRAM...
set -eu
missing=
for one in "$@"; do
  command -v "${one#*:}" >/dev/null || missing="$missing ${one%%:*}"
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
