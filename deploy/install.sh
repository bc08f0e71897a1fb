#!/usr/bin/env bash
# Install or remove basert as a systemd service. Configuration and bundles are kept on removal.
set -euo pipefail
umask 022  # the service's user must be able to read it all, whatever root is set to

usage() {
    cat <<'HELP'
usage: install.sh install|uninstall [--root DIR] [--basert PATH]

  --root DIR     act on the tree below DIR and leave systemd alone (with --basert); also DESTDIR
  --basert PATH  the command that the service runs; without it, basert is installed into /opt/basert

`install` puts the units, the service's user and, unless there is one, /etc/basert/basert.toml in place.
HELP
}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${DESTDIR:-}
basert=
action=${1:-}
shift || true
while [ $# -gt 0 ]; do
    case $1 in
        --root) root=${2:?"--root wants a folder"}; shift 2 ;;
        --basert) basert=${2:?"--basert wants a path"}; shift 2 ;;
        *) usage >&2; exit 2 ;;
    esac
done

units=$root/etc/systemd/system
live() { [ -z "$root" ]; }  # whether this is about the running system

install_service() {
    if [ -z "$basert" ]; then
        live || fail "--root needs --basert, too: what is installed below $root would not run at another place."
        python3 -m venv /opt/basert
        /opt/basert/bin/pip install --quiet --disable-pip-version-check "$here/..[cpu]"
        basert=/opt/basert/bin/basert
    fi
    install -d "$units" "$root/usr/lib/sysusers.d" "$root/etc/basert" "$root/usr/local/share/doc/basert"
    sed "s|@BASERT@|$basert|" "$here/basert.service" > "$units/basert.service"
    chmod 644 "$units/basert.service"
    install -m 644 "$here/basert.socket" "$units/basert.socket"
    install -m 644 "$here/basert.sysusers" "$root/usr/lib/sysusers.d/basert.conf"
    install -m 644 "$here/../docs/serving.md" "$root/usr/local/share/doc/basert/serving.md"
    [ -e "$root/etc/basert/basert.toml" ] || install -m 644 "$here/basert.toml" "$root/etc/basert/basert.toml"
    if live; then
        systemd-sysusers /usr/lib/sysusers.d/basert.conf
        systemctl daemon-reload
        echo "Put a bundle in /var/lib/basert, look at /etc/basert/basert.toml, then: systemctl enable --now basert"
    fi
}

uninstall_service() {
    if live; then
        systemctl disable --now basert.service basert.socket || true
    fi
    rm -f "$units/basert.service" "$units/basert.socket" "$root/usr/lib/sysusers.d/basert.conf"
    rm -rf "$root/opt/basert" "$root/usr/local/share/doc/basert"
    if live; then
        systemctl daemon-reload
        echo "/etc/basert, /var/lib/basert and the user basert were kept."
    fi
}

if live && [ "$(id -u)" != 0 ] && [ -n "$action" ]; then
    fail "this changes the system: run it as root, or name another tree with --root."
fi
case $action in
    install) install_service ;;
    uninstall) uninstall_service ;;
    *) usage >&2; exit 2 ;;
esac
