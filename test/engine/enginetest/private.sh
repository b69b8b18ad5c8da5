#!/bin/sh
# Keeps the namespaces of a private Docker engine, and takes down the engine
# when its standard input closes: so also when the test that holds the other end
# is killed. Run as: private.sh DIR CGROUP, as root.
#
#   DIR     the engine's files; removed at the end
#   CGROUP  the cgroup parent of its containers, such as /berth-test-x; unique
#
# Prints one line, "ready PID", where PID is a process in the namespaces that
# lives until the end. What goes wrong is on standard error.
set -u
dir=$1
cgroup=$2
# All that has this in its name is going to be killed: it must not be too short.
case $cgroup in
/berth-test-?*) ;;
*)
	echo "private.sh: bad cgroup parent: $cgroup" >&2
	exit 2
	;;
esac

# The engine's ID and its registries' keys are in /etc/docker; sockets of
# plugins in /run/docker; containerd's and its shims' in /run/containerd, where
# dockerd would otherwise find and use the machine's own containerd.
mkdir -p "$dir/etc" /etc/docker /run/docker /run/containerd
# shellcheck disable=SC2016 # expanded by the inner shell
unshare --net --mount --propagation private sh -euc '
	mount --bind "$1/etc" /etc/docker
	mount -t tmpfs -o mode=711 berth-test /run/docker
	mount -t tmpfs -o mode=711 berth-test /run/containerd
	ip link set lo up
	echo "ready $$"
	exec sleep infinity >/dev/null
' holder "$dir" </dev/null &
holder=$!
exec >/dev/null
# Nobody but the test tells this script to stop.
trap '' INT TERM HUP
while read -r _; do :; done

# ours prints the processes of the engine: those in its mount namespace
# (dockerd, containerd, shims, the holder), and those in its cgroups.
# The holder may not have got as far as a namespace of its own: the machine's is
# never ours. The namespace is held until nobody is left: the kernel gives the number
# of one that has ended to the next, which may be that of any container.
ns=
if command exec 9<"/proc/$holder/ns/mnt"; then
	ns=$(readlink "/proc/$$/fd/9")
fi 2>/dev/null
[ "$ns" != "$(readlink /proc/self/ns/mnt)" ] || ns=
kill -9 $holder 2>/dev/null
ours() {
	[ -z "$ns" ] || find /proc/[0-9]*/ns/mnt -lname "mnt:\\[${ns#mnt:?}" 2>/dev/null | cut -d/ -f3
	grep -ls "$cgroup" /proc/[0-9]*/cgroup | cut -d/ -f3
}
tries=0
while pids=$(ours) && [ -n "$pids" ] && [ $tries -lt 100 ]; do
	# shellcheck disable=SC2086 # a list
	kill -9 $pids 2>/dev/null
	tries=$((tries + 1))
	sleep 0.02
done
wait

# A cgroup is busy for a moment after its last process.
tries=0
while dirs=$(find /sys/fs/cgroup -depth -type d -path "*$cgroup*") && [ -n "$dirs" ] && [ $tries -lt 100 ]; do
	# shellcheck disable=SC2086 # a list
	rmdir $dirs 2>/dev/null && break
	tries=$((tries + 1))
	sleep 0.02
done

# With the last process and the handle its mounts are gone, so this deletes nothing
# through one.
exec 9<&-
rm -rf --one-file-system "$dir"
