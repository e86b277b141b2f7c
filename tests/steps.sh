# What tests/run and deploy/demo share: where caches are, what must be installed, one step at a time.
# To be sourced by bash. Each step runs in a process group of its own, which is gone when the step is over.

cache="${XDG_CACHE_HOME:-$HOME/.cache}/ringfence"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
# Test runs keep no incremental state: it is large, and a build from nothing never reads it.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Installs Debian packages, or says which are missing. Arguments: pairs of program and package.
need_programs() {
    local missing=()
    while (($#)); do
        command -v "$1" >/dev/null || missing+=("$2")
        shift 2
    done
    ((${#missing[@]})) || return 0
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        say "installing: ${missing[*]}"
        apt-get update -q >&2 || die "apt-get update failed; install by hand: ${missing[*]}"
        DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}" >&2 ||
            die "apt-get install failed; install by hand: ${missing[*]}"
    else
        die "missing Debian packages: ${missing[*]}. As root: apt-get install ${missing[*]}"
    fi
}

# A Rust that is new enough, with the components that are named.
need_rust() {
    local wanted found component
    command -v cargo >/dev/null || die "no cargo on the PATH: install Rust, see https://rustup.rs"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    found=$(rustc --version | cut -d' ' -f2)
    if ! newer_or_same "${found%%-*}" "$wanted"; then
        die "Rust $found is too old: $wanted or newer is needed (rustup update stable)"
    fi
    for component in "$@"; do
        cargo "${component#rust}" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null || die "cargo ${component#rust} is missing, and there is no rustup to add $component with"
        rustup component add "$component" >&2 || die "rustup could not add $component"
    done
}

newer_or_same() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n1) == "$2" ]]; }

# A Go that is new enough, on the PATH. Where the system's is too old, Go's own toolchain module is taken beside it.
need_go() {
    local wanted=$1 platform folder
    need_programs go golang-go
    export GOPATH="$cache/go" GOFLAGS=-modcacherw
    if newer_or_same "$(go env GOVERSION | sed 's/^go//')" "$wanted"; then
        return 0
    fi
    platform=$(go env GOOS)-$(go env GOARCH)
    say "$(go version) is too old, taking Go $wanted for the tests"
    folder=$(cd / && go mod download -json "golang.org/toolchain@v0.0.1-go$wanted.$platform" | sed -n 's/^.*"Dir": "\(.*\)".*$/\1/p')
    [[ -d $folder ]] || die "Go $wanted or newer is needed, and could not be had; install it by hand"
    # A module's files are not executable; this is what newer releases of Go do about it themselves.
    chmod +x "$folder"/bin/* "$folder"/pkg/tool/*/*
    export PATH="$folder/bin:$PATH" GOROOT="$folder"
}

group=
stop_group() {
    [[ -n $group ]] || return 0
    local leader=$group tries
    group=
    kill -TERM -- "-$leader" 2>/dev/null || return 0
    for tries in {1..20}; do
        kill -0 -- "-$leader" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL -- "-$leader" 2>/dev/null || true
}
trap stop_group EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a function or command in a process group of its own and gives its status. Nothing of it is left behind.
# Not to be called where bash ignores `set -e` (in `if`, before `||`): the function would go on after a failure.
in_group() {
    local status=0
    set -m
    (set -euo pipefail; "$@") </dev/null &
    group=$!
    set +m
    wait "$group" || status=$?
    stop_group
    return "$status"
}

duration() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }
