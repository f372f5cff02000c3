#!/bin/sh
# Puts the symbols of the built programs into files of their own, and says how large each is: strip-dist.sh TARGET
# A debugger finds them beside the program; without them a backtrace has names of functions missing.
set -eu
target=$1
mkdir -p "$target/package"
for program in penstock loadtest; do
  objcopy --only-keep-debug "$target/dist/$program" "$target/package/$program.debug"
  objcopy --strip-all --add-gnu-debuglink="$target/package/$program.debug" "$target/dist/$program" "$target/package/$program"
  stat -c '%s bytes  %n' "$target/package/$program" "$target/package/$program.debug"
done
