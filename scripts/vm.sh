#!/bin/bash
# A small Debian machine in QEMU, for what the machine at hand does not have: a pure cgroup v2, AppArmor, CRIU,
# ipvlan, VLAN and dummy links, NFS, quotas of XFS, all capabilities.
#
#   scripts/vm.sh build              make the disk image (as root, with mmdebstrap; 2 GB, a minute)
#   scripts/vm.sh run COMMAND...     boot it, run the command in the checkout as it is now, pass on its output
#                                    and its exit status; the image stays as it was
#
# The checkout (what git knows or would add) is in the guest's /longshore, with the Python packages of .venv.
# There is no network but loopback. By environment:
#   VM_DIRECTORY   where the image is, build/vm by default
#   VM_TIMEOUT     seconds after which the machine is ended, 3600 by default
#   VM_MEMORY      megabytes, 3000 by default
#   VM_APPEND      more for the kernel's command line, such as overlay.metacopy=Y
#   VM_KVM         any text: use KVM
#   VM_EXTRA       a directory whose programs come first in the guest's PATH
# Without KVM everything takes about ten times as long: tests are told to be patient (LONGSHORE_TEST_PATIENCE).
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "$0")")/.."
readonly DIRECTORY=${VM_DIRECTORY:-$PWD/build/vm}
readonly SUITE=bookworm
readonly PACKAGES=(
    systemd-sysv udev dbus kmod linux-image-amd64 initramfs-tools zstd
    containerd runc crun criu docker.io docker-registry tini busybox-static
    nftables libnftables1 iptables iproute2 iputils-ping conntrack ethtool firewalld ufw
    python3 python3-venv procps tmux git openssl strace util-linux
    apparmor xfsprogs e2fsprogs nfs-kernel-server nfs-common
)

main() {
    case ${1:-} in
        build) build ;;
        run) shift && run "$@" ;;
        *) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
}

say() { printf 'vm: %s\n' "$*" >&2; }
die() { say "$*" && exit 125; }

# ----------------------------------------------------------------------------------------------- image

build() {
    [ "$(id -u)" -eq 0 ] || die "run as root: the image holds other users' files"
    command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: apt-get install mmdebstrap"
    mkdir -p "$DIRECTORY"
    workdir=$(mktemp -d "$DIRECTORY/build.XXXXXX")
    trap 'rm -rf --one-file-system "$workdir"' EXIT
    say "unpacking Debian $SUITE"
    # As this machine reaches its mirrors, whichever they are; the guest itself never asks one.
    apt-config dump | grep -E '^Acquire::(http|https|Check|Retries)' >"$workdir/apt.conf" || true
    local sources=() name
    for name in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
        [ ! -s "$name" ] || sources+=("$name")
    done
    mmdebstrap --quiet --variant=minbase --aptopt="$workdir/apt.conf" \
        --include="$(IFS=, && echo "${PACKAGES[*]}")" \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
        --essential-hook='printf "MODULES=list\nCOMPRESS=zstd\n" >"$1/etc/initramfs-tools/conf.d/longshore"' \
        --essential-hook='printf "virtio_pci\nvirtio_blk\next4\n" >"$1/etc/initramfs-tools/modules"' \
        "$SUITE" "$workdir/root" "${sources[@]}"
    furnish "$workdir/root"
    cp "$workdir"/root/boot/vmlinuz-* "$workdir/vmlinuz"
    cp "$workdir"/root/boot/initrd.img-* "$workdir/initrd"
    say "making the file system"
    truncate -s 8G "$workdir/disk"
    mkfs.ext4 -q -d "$workdir/root" "$workdir/disk"
    mv "$workdir/vmlinuz" "$workdir/initrd" "$workdir/disk" "$DIRECTORY"
    say "made $DIRECTORY/disk, $(du -sh "$DIRECTORY/disk" | cut -f1)"
}

furnish() {
    local root=$1 packages=$1/opt/longshore
    echo longshore >"$root/etc/hostname"
    printf '127.0.0.1 localhost longshore\n::1 localhost\n' >"$root/etc/hosts"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,locale}
    # Nothing runs but what the command starts: the target below asks for basic.target alone.
    systemctl --root="$root" disable docker.socket 2>/dev/null || true
    cat >"$root/etc/systemd/system/longshore.service" <<'EOF'
[Unit]
After=basic.target
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/longshore-guest
Delegate=yes
TimeoutStartSec=infinity
LimitNOFILE=1048576
EOF
    cat >"$root/etc/systemd/system/longshore.target" <<'EOF'
[Unit]
Requires=basic.target longshore.service
After=basic.target
AllowIsolate=yes
EOF
    cat >"$root/usr/local/sbin/longshore-guest" <<'EOF'
#!/bin/bash
# Runs the command that is in the second disk, a tar file with the checkout, and ends the machine.
until [ -c /dev/virtio-ports/output ] && [ -c /dev/virtio-ports/status ]; do sleep 0.1; done
exec </dev/null >/dev/virtio-ports/output 2>&1
mkdir -p /longshore && cd /longshore && tar -xf /dev/vdb
export HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/longshore/src:/longshore/tests
export PATH=/longshore/.vm/bin:/opt/longshore/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ip link set lo up
chmod 1777 /tmp
# What a machine has by the time it is used: the tests fail if they leave more than they found.
systemctl start dbus
mkdir -p /run/firewalld
touch /run/xtables.lock
bash .vm/command
echo $? >/dev/virtio-ports/status
sleep 0.5
systemctl poweroff -ff >/dev/null 2>&1
EOF
    chmod 755 "$root/usr/local/sbin/longshore-guest"
    furnish_python "$packages"
    local program
    for program in docker; do
        if command -v $program >/dev/null && ! ldd "$(command -v $program)" >/dev/null 2>&1; then
            cp "$(command -v $program)" "$root/usr/local/bin/"
        fi
    done
}

# Packages as they are in .venv, if that is of the guest's Python; without what only checks and benchmarks need.
furnish_python() {
    local target=$1 version
    version=$(sed -n 's/^version *= *\(3\.[0-9]*\).*/\1/p' .venv/pyvenv.cfg)
    [ -e "$workdir/root/usr/bin/python$version" ] || die ".venv is of Python $version, which Debian $SUITE has not"
    mkdir -p "$target/bin"
    cp -a ".venv/lib/python$version/site-packages" "$target/packages"
    rm -rf "$target"/packages/{mypy,mypyc,ruff,grpc,grpc_tools,pip,__editable__*}
    cat >"$target/bin/python" <<'EOF'
#!/bin/sh
PYTHONPATH=$PYTHONPATH:/opt/longshore/packages exec /usr/bin/python3 "$@"
EOF
    chmod 755 "$target/bin/python"
}

# ----------------------------------------------------------------------------------------------- running

run() {
    [ $# -gt 0 ] || die "no command"
    [ -e "$DIRECTORY/disk" ] || scripts/vm.sh build
    workdir=$(mktemp -d "${TMPDIR:-/tmp}/longshore-vm.XXXXXX")
    qemu=
    trap 'finish' EXIT
    trap 'exit 130' INT TERM
    patience=${LONGSHORE_TEST_PATIENCE:-$([ -n "${VM_KVM:-}" ] && echo 1 || echo 8)}
    checkout "$workdir/checkout" "$@"
    : >"$workdir/output"
    # There being a /dev/kvm does not say that it works where the machine at hand is a virtual one itself.
    local accelerator=(-accel "tcg,thread=multi,tb-size=512" -cpu max)
    if [ -n "${VM_KVM:-}" ]; then accelerator=(-accel kvm -cpu host); fi
    TMPDIR=$workdir qemu-system-x86_64 "${accelerator[@]}" -smp 2 -m "${VM_MEMORY:-3000}" \
        -nodefaults -no-reboot -nographic -nic none -serial "file:$workdir/console" -monitor none \
        -kernel "$DIRECTORY/vmlinuz" -initrd "$DIRECTORY/initrd" \
        -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 systemd.unit=longshore.target \
systemd.unified_cgroup_hierarchy=1 apparmor=1 security=apparmor ${VM_APPEND:-}" \
        -drive "file=$DIRECTORY/disk,format=raw,if=virtio,snapshot=on" \
        -drive "file=$workdir/checkout,format=raw,if=virtio,readonly=on" \
        -device virtio-rng-pci -device virtio-serial-pci \
        -chardev "file,id=output,path=$workdir/output" -device virtserialport,chardev=output,name=output \
        -chardev "file,id=status,path=$workdir/status" -device virtserialport,chardev=status,name=status \
        </dev/null >"$workdir/qemu" 2>&1 &
    qemu=$!
    tail --pid="$qemu" -s 0.5 -c +1 -f "$workdir/output" &
    local tail=$! deadline=$((SECONDS + ${VM_TIMEOUT:-3600}))
    while kill -0 "$qemu" 2>/dev/null; do
        if [ $SECONDS -ge $deadline ]; then
            say "ended after ${VM_TIMEOUT:-3600} seconds"
            kill -KILL "$qemu"
            break
        fi
        sleep 0.5
    done
    wait "$tail" || true
    wait "$qemu" 2>/dev/null || true
    if [ ! -s "$workdir/status" ]; then
        cat "$workdir/qemu" >&2
        tail -n 30 "$workdir/console" >&2 || true
        die "the machine ended without the command's status; above is its console's end"
    fi
    exit "$(tr -dc 0-9 <"$workdir/status")"
}

finish() {
    [ -z "$qemu" ] || kill -KILL "$qemu" 2>/dev/null || true
    [ -n "${VM_KEEP:-}" ] || rm -rf "$workdir"
}

# The checkout and the command, one tar file, which the guest reads as a disk.
checkout() {
    local archive=$1
    shift
    mkdir -p "$workdir/.vm/bin"
    {
        echo "export LONGSHORE_TEST_PATIENCE=$patience PYTEST_TIMEOUT=$((180 * patience))"
        printf '%q ' "$@"
    } >"$workdir/.vm/command"
    if [ -n "${VM_EXTRA:-}" ]; then cp -L "$VM_EXTRA"/* "$workdir/.vm/bin/"; fi
    git ls-files -z --cached --others --exclude-standard |
        tar --null --ignore-failed-read -cf "$archive" --files-from=-
    tar -rf "$archive" -C "$workdir" .vm
    truncate -s %1M "$archive"
}

main "$@"
