#!/bin/sh
# Installs the S3 clients of `make test-clients` into an environment of their own, because awscli pins what it
# needs. rclone comes from Debian, unless there is one.
# Usage: install.sh UV FOLDER
set -eu
uv=$1
folder=$2
test -x "$folder/bin/python" || "$uv" venv --quiet --no-project --python .venv/bin/python "$folder"
VIRTUAL_ENV="$folder" "$uv" pip install --quiet --group clients
if command -v rclone >/dev/null || test -x "$folder/bin/rclone"; then
  exit 0
fi
download() (
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  cd "$scratch"
  fetch="apt-get -qq -o APT::Sandbox::User=root download rclone"
  $fetch || { apt-get -qq update && $fetch; }
  dpkg-deb --extract rclone_*.deb .
  cp usr/bin/rclone "$1/bin/"
)
download "$(cd "$folder" && pwd)" ||
  echo "rclone is not on PATH and can't be downloaded by apt-get: its tests will be skipped" >&2
