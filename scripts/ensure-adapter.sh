#!/usr/bin/env bash
# Makes sure that there is a Vulkan, Metal or DX12 adapter. Does nothing where `curvkit adapters` finds one;
# else installs Mesa's software Vulkan driver where there is apt; else says what to install, and fails.
# usage: ensure-adapter.sh CURVKIT      the program: only it can tell, a driver's hardware may be missing
set -euo pipefail
curvkit=$1
"$curvkit" --version >/dev/null
found() { "$curvkit" adapters >/dev/null 2>&1; }
if found; then exit 0; fi

give_up() {
    echo "ensure-adapter: $1" >&2
    echo "ensure-adapter: install a Vulkan driver and its loader, then try again:" >&2
    echo "    Debian, Ubuntu   apt-get install mesa-vulkan-drivers" >&2
    echo "    Fedora           dnf install mesa-vulkan-drivers vulkan-loader" >&2
    echo "    Arch             pacman -S vulkan-swrast vulkan-icd-loader" >&2
    echo "    Alpine           apk add mesa-vulkan-swrast vulkan-loader" >&2
    echo "    macOS, Windows   Metal and DX12 come with the system: update it, or its graphics driver" >&2
    exit 1
}

command -v apt-get >/dev/null || give_up "found no adapter and no apt"
as_root=()
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || give_up "found no adapter, and neither root nor sudo to install one"
    as_root=(sudo)
fi
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "$@"; }
install() { apt "$@" install --yes --no-install-recommends mesa-vulkan-drivers; }

# Writes to $1 what the system's own sources name of its release, with the backports of that release in its place.
backports_of_own_mirror() {
    sed -nE "s/^(deb (\[[^]]*\] )?[^ ]+) $release (.*)/\1 $release-backports \3/p" \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.list >"$1/backports.list" 2>/dev/null || true
    awk -v suite="$release" 'BEGIN { RS = ""; ORS = "\n\n" }
        (" " $0 "\n") ~ "\nSuites:([^\n]* )?" suite "[ \n]" { sub("\nSuites:[^\n]*", "\nSuites: " suite "-backports"); print }' \
        /etc/apt/sources.list.d/*.sources >"$1/backports.sources" 2>/dev/null || true
    [ -s "$1/backports.list" ] || [ -s "$1/backports.sources" ]
}

# A newer Mesa is up to three times as fast. It comes from the backports of the mirror that the system uses, which are
# added to its sources for this one installation.
install_newer() (
    sources=$(mktemp -d)
    trap 'rm -rf "$sources"' EXIT
    mkdir -p "$sources/parts" "$sources/lists/partial"
    chmod -R a+rX "$sources"
    cp /etc/apt/sources.list.d/* "$sources/parts" 2>/dev/null || true
    backports_of_own_mirror "$sources/parts" || exit 1
    options=(-o "Dir::Etc::sourceparts=$sources/parts" -o "Dir::State::Lists=$sources/lists")
    apt "${options[@]}" --error-on=any update && install "${options[@]}" --target-release "$release-backports"
)

echo "ensure-adapter: found no adapter; installing mesa-vulkan-drivers"
release=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
if [ -z "$release" ] || ! install_newer; then
    apt update || echo "ensure-adapter: the package lists were not brought up to date" >&2
    install || give_up "apt could not install mesa-vulkan-drivers"
fi
found || give_up "mesa-vulkan-drivers is installed, but there is still no adapter"
