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
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install --yes --no-install-recommends "$@" mesa-vulkan-drivers
}

echo "ensure-adapter: found no adapter; installing mesa-vulkan-drivers"
"${as_root[@]}" apt-get update || echo "ensure-adapter: the package lists were not brought up to date" >&2
# a newer Mesa is the faster one: from backports, where these are among the system's sources
backports=$(. /etc/os-release && echo "${VERSION_CODENAME-}-backports")
case $(apt-cache madison mesa-vulkan-drivers) in
    *" $backports/"*) install --target-release "$backports" || install ;;
    *) install ;;
esac || give_up "apt could not install mesa-vulkan-drivers"
found || give_up "mesa-vulkan-drivers is installed, but there is still no adapter"
