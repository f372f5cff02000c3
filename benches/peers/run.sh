#!/bin/sh
# Builds the gateway as it is and runs the side-by-side comparison; arguments go to run.py.
set -eu
cd "$(dirname "$0")/../.."
cargo build --profile dist --locked
exec python3 benches/peers/run.py "$@"
