#!/bin/sh
# Makes a file with a random value for each secret that has none, in ./secrets or in the folder named.
#   sh secrets.sh [FOLDER]
set -eu
folder=${1:-$(dirname "$0")/secrets}

random() {
  od -An -N20 -tx1 /dev/urandom | tr -d ' \n'
}

keep() {
  test -e "$folder/$1" && return
  printf '%s\n' "$2" >"$folder/$1.new"
  # Read by the users of the containers; on this machine, the folder keeps all others out.
  chmod 444 "$folder/$1.new"
  mv "$folder/$1.new" "$folder/$1"
  echo "made $folder/$1"
}

mkdir -p "$folder"
chmod 700 "$folder"
keep minio_root_user administrator
keep minio_root_password "$(random)"
keep minio_access_key resize-pipeline
keep minio_secret_key "$(random)"
keep ui_password "$(random)"
keep dagster_pg_password "$(random)"
keep celery_broker_url "redis://:$(random)@valkey:6379/0"
