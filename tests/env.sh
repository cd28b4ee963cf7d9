# shellcheck shell=bash
# shellcheck disable=SC2034 # used by those that source it
# Where things are: sourced by the scripts here and in packaging/.

# The clone, and the folder outside of it for what is slow to make.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${FOIP_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/foip}
export FOIP_CACHE=$cache

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}
target=$CARGO_TARGET_DIR
export PATH=$cache/tools/bin:$PATH:/usr/sbin:/sbin

# ring has a little C and assembly: the host's compiler will do for musl, without musl-tools.
musl=x86_64-unknown-linux-musl
export CC_x86_64_unknown_linux_musl=${CC_x86_64_unknown_linux_musl:-cc}
release=$target/$musl/release

say() { echo "${0##*/}: $*" >&2; }
die() {
    say "$*"
    exit 1
}
