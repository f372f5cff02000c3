#!/usr/bin/env bash
# Installs what the test suite needs and this machine lacks, from Debian's packages.
#
#   scripts/install-test-deps.sh           install what is missing (as root, or with passwordless sudo)
#   scripts/install-test-deps.sh --check   only say what is missing; exit 1 if anything is
#
# The tests start private servers of their own on free ports, so no system service is started or left enabled that was not there before.
# Where it may not install, it prints the one command that does.
set -euo pipefail

# What must be there, and the Debian package that brings it. Servers live outside an ordinary user's PATH.
PATH="$PATH:/usr/sbin:/sbin"
missing=()
need() { # need PACKAGE COMMAND…: the package, unless every command is there
  local package=$1 command
  shift
  for command in "$@"; do
    command -v "$command" >/dev/null 2>&1 || { missing+=("$package"); return; }
  done
}
need redis-server redis-server redis-cli
need rabbitmq-server /usr/lib/rabbitmq/bin/rabbitmq-server epmd
need nats-server nats-server
need prometheus promtool
need nginx-light nginx
need curl curl
need python3 python3
# The Node example of docs/integrate.md.
need nodejs node
# The Kafka client of the tests is built from C, and so is what steps the clock of a process in the chaos runs.
need make make
need gcc cc
need g++ c++
# The budget of instructions.
need valgrind valgrind
need binutils strip readelf
# PostgreSQL's server programs are not in PATH on Debian.
if ! command -v initdb >/dev/null 2>&1 && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
  missing+=(postgresql)
fi
# A module of Python has no command.
python3 -c 'import yaml' >/dev/null 2>&1 || missing+=(python3-yaml)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

[ ${#missing[@]} -gt 0 ] || exit 0
by_hand="apt-get update && apt-get install --no-install-recommends ${missing[*]}"
if [ "${1:-}" = --check ]; then
  echo "missing for the tests: ${missing[*]}" >&2
  exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
  else
    echo "The tests need: ${missing[*]}. Install them as root:" >&2
    echo "  $by_hand" >&2
    exit 1
  fi
fi
if ! command -v apt-get >/dev/null 2>&1; then
  echo "The tests need redis-server, postgresql, rabbitmq-server, nats-server, promtool (Prometheus), nginx, curl, python3, python3-yaml, nodejs and valgrind, and this machine has no apt-get." >&2
  echo "On Debian: $by_hand" >&2
  exit 1
fi

# policy-rc.d decides whether a package may start its service; 101 = no. Whatever stood there comes back afterwards.
policy=/usr/sbin/policy-rc.d
saved=$policy.before-penstock
restore() {
  "${as_root[@]}" rm -f "$policy"
  if [ -e "$saved" ]; then "${as_root[@]}" mv "$saved" "$policy"; fi
}
# A saved one from a run that was killed is the original: keep it.
if [ -e "$policy" ] && [ ! -e "$saved" ]; then "${as_root[@]}" mv "$policy" "$saved"; fi
trap restore EXIT
printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
"${as_root[@]}" chmod 755 "$policy"

enabled() { systemctl is-enabled --quiet "$1" 2>/dev/null; }
services=(redis-server postgresql rabbitmq-server nats-server prometheus nginx)
before=()
for service in "${services[@]}"; do if enabled "$service"; then before+=("$service"); fi; done

echo "installing: ${missing[*]}"
options=(-q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
"${as_root[@]}" apt-get "${options[@]}" update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "${options[@]}" install --no-install-recommends "${missing[@]}"

# The packages enable their services for the next boot; nobody asked for that here.
for service in "${services[@]}"; do
  case " ${before[*]-} " in *" $service "*) continue ;; esac
  if enabled "$service"; then "${as_root[@]}" systemctl disable --quiet "$service" || true; fi
done
