#!/bin/bash
# Sets a Debian machine up for berth's demo and tests: run by make, and safe to
# run again. It does only what is missing, prints a line for each thing it does,
# and nothing when there is nothing to do.
#
#   test/setup.sh engine   a Docker engine that answers
#   test/setup.sh test     that, and what the tests run (dockerd, dig, shellcheck, C
#                          compilers, firewall and network tools, BIND and Knot
#                          without their services), and packages which they
#                          unpack (Debian's C library, a name server)
#   test/setup.sh bench    an engine, and what the benchmarks run (dnsperf, BIND, Ruby)
#   test/setup.sh bind     an engine, and what the demo with BIND runs
#
# An engine that runs is used as it is. Where none answers, one is started; none
# is ever stopped or reconfigured. Installing and starting need root.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # where Debian's users do not look

readonly logs=$PWD/.cache
missing=() # Debian packages

# What the tests unpack and nobody installs: the files of a Debian container, and
# a name server, whose package would start it on this machine.
readonly unpacked=(base-files libc-bin libc6 bind9 bind9-libs libcap2)

say() { echo "setup: $*"; }

die() {
	echo "setup: $*" >&2
	exit 1
}

need_root() {
	[ "$(id -u)" = 0 ] || die "$1; run this as root"
}

# want COMMAND PACKAGE… notes the packages unless the command is there.
want() {
	command -v "$1" >/dev/null || missing+=("${@:2}")
}

install_missing() {
	[ ${#missing[@]} -gt 0 ] || return 0
	need_root "these Debian packages are missing: ${missing[*]}"
	command -v apt-get >/dev/null || die "cannot install ${missing[*]}: this is not Debian; install them by hand"
	say "install from Debian: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	if ! { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } \
		>"$logs/apt.log" 2>&1 </dev/null; then
		tail -n 20 "$logs/apt.log" >&2
		die "cannot install ${missing[*]}: see $logs/apt.log"
	fi
}

# deb_names prints the file names of those packages, which tell their versions.
deb_names() {
	apt-get download --print-uris "${unpacked[@]}" 2>>"$logs/apt.log" | cut -d ' ' -f 2
}

# have_debs tells whether all of them are in .cache/debian, as apt knows them.
have_debs() {
	local name names
	names=$(deb_names) && [ -n "$names" ] || return 1
	for name in $names; do
		[ -e "$logs/debian/$name" ] || return 1
	done
}

get_debs() {
	rm -rf "$logs/debian.new"
	mkdir "$logs/debian.new"
	(cd "$logs/debian.new" && apt-get download "${unpacked[@]}") >"$logs/apt.log" 2>&1 </dev/null || return 1
	rm -rf "$logs/debian"
	mv "$logs/debian.new" "$logs/debian"
}

debs() {
	command -v apt-get >/dev/null || die "cannot download ${unpacked[*]}: this is not Debian"
	! have_debs || return 0
	say "download from Debian: ${unpacked[*]}"
	get_debs && return
	# Lists that are missing, or older than the archive.
	need_root "cannot download ${unpacked[*]} without apt-get update"
	apt-get update >"$logs/apt.log" 2>&1 </dev/null || true
	get_debs || {
		tail -n 20 "$logs/apt.log" >&2
		die "cannot download ${unpacked[*]}: see $logs/apt.log"
	}
}

# socket prints the path of the engine's socket; nothing for an engine elsewhere.
socket() {
	case ${DOCKER_HOST:-} in
	"") echo /var/run/docker.sock ;;
	unix://*) echo "${DOCKER_HOST#unix://}" ;;
	esac
}

# answers tells whether the engine answers a ping. Perl, because every Debian has
# it, and it has Unix sockets.
answers() {
	local path
	path=$(socket)
	[ -n "$path" ] || return 0 # elsewhere: the tests will say
	[ -S "$path" ] || return 1
	perl -MIO::Socket::UNIX -e '
		alarm 10;
		my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or exit 1;
		print $s "GET /_ping HTTP/1.0\r\n\r\n";
		exit(<$s> =~ / 200 / ? 0 : 1);
	' "$path"
}

# await SECONDS PID: waits until the engine answers. It gives up when the time is
# over, or the process (0 for none) has ended.
await() {
	local end=$((SECONDS + $1))
	until answers; do
		[ $SECONDS -lt $end ] || return 1
		[ "$2" = 0 ] || kill -0 "$2" 2>/dev/null || return 1
		sleep 0.1
	done
}

start_engine() {
	need_root "no Docker engine answers at $(socket)"
	if [ -n "${DOCKER_HOST:-}" ]; then
		die "no Docker engine answers at $DOCKER_HOST, which DOCKER_HOST names; start it, or unset DOCKER_HOST"
	fi
	if [ -d /run/systemd/system ]; then
		say "no Docker engine answers: start docker.service"
		systemctl start docker.service
		await 60 0 || die "docker.service does not answer: see journalctl -u docker"
		return
	fi
	say "no Docker engine answers: start dockerd in the background, log in $logs/dockerd.log"
	: >"$logs/dockerd.log"
	start_dockerd && return
	# On a file system that overlayfs cannot use, the plain copying driver works.
	if ! grep -qs storage-driver /etc/docker/daemon.json; then
		say "dockerd did not start: try again with --storage-driver vfs"
		start_dockerd --storage-driver vfs && return
	fi
	tail -n 20 "$logs/dockerd.log" >&2
	die "dockerd does not start: see $logs/dockerd.log"
}

start_dockerd() {
	# A session of its own, so that Ctrl-C here does not end it; descriptor 9 is
	# the lock.
	setsid dockerd "$@" >>"$logs/dockerd.log" 2>&1 </dev/null 9>&- &
	await 60 $! || {
		kill $! 2>/dev/null || true
		wait $! || true
		return 1
	}
}

engine() {
	if ! answers; then
		want dockerd docker.io iptables
		install_missing
		# The package may have started it, if something starts services here.
		[ ${#missing[@]} -eq 0 ] || await 5 0 || true
		missing=()
		answers || start_engine
	fi
}

tools() {
	want gcc gcc libc6-dev
	want musl-gcc musl-tools
	want dig bind9-dnsutils
	want shellcheck shellcheck
	want iptables iptables
	want ip iproute2
	if ! command -v dockerd >/dev/null; then
		die "the engine that answers is not of this machine: the tests need dockerd itself (Debian's docker.io)"
	fi
}

# name_servers PACKAGE… installs BIND (bind9) and Knot (knot) for tests, which start
# their own. The packages would start theirs, now and at each boot, on a port 53 that somebody
# else may need; a server that was here before is left as it is.
name_servers() {
	local package
	for package; do
		case $package in
		bind9) want named bind9 ;;
		knot) want knotd knot ;;
		esac
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	need_root "these Debian packages are missing: ${missing[*]}"
	local policy=/usr/sbin/policy-rc.d installed=("${missing[@]}")
	if [ -e $policy ]; then
		install_missing # this machine has a policy of its own
	else
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101 # start nothing: a test set-up is installing\n' >$policy
		chmod 0755 $policy
		install_missing
		rm -f $policy
		trap - EXIT
	fi
	missing=()
	[ -d /run/systemd/system ] || return 0
	case " ${installed[*]} " in *" bind9 "*) systemctl --quiet disable --now named.service ;; esac
	case " ${installed[*]} " in *" knot "*) systemctl --quiet disable --now knot.service ;; esac
}

mkdir -p "$logs"
exec 9>"$logs/setup.lock"
flock 9

case ${1:-test} in
engine)
	engine
	;;
test)
	engine
	tools
	install_missing
	missing=()
	name_servers bind9 knot
	debs
	;;
bench)
	engine
	tools
	want dnsperf dnsperf
	want ruby ruby
	install_missing
	missing=()
	name_servers bind9
	;;
bind)
	engine
	want dig bind9-dnsutils
	install_missing
	missing=()
	name_servers bind9
	;;
*)
	die "usage: test/setup.sh engine|test|bench|bind"
	;;
esac
