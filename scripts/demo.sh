#!/bin/bash
# The demonstration behind `make run` and `make stop`: a longshored of its own, on roots of its own.
set -euo pipefail
cd -- "$(dirname -- "$(readlink -f -- "$0")")/.."
readonly DATA=/var/lib/longshore-demo RUN=/run/longshore-demo
readonly PIDFILE=$RUN/longshored.pid LOG=$DATA/longshored.log IMAGE=$DATA/busybox.tar
readonly PORT=${PORT:-8080}
unset DOCKER_CONTEXT DOCKER_TLS_VERIFY DOCKER_CERT_PATH
export DOCKER_HOST=unix://$RUN/docker.sock DOCKER_CONFIG=$DATA/docker-config

main() {
    [ "$(id -u)" -eq 0 ] || die "run as root: containers need it"
    case ${1-} in
        start) start ;;
        stop) stop ;;
        *) die "usage: demo.sh start|stop" ;;
    esac
}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }
show() { printf '$ %s\n' "$*"; "$@"; }

# The daemon's pid if it runs: a number in a file may belong to somebody else by now.
daemon() {
    local pid
    pid=$(cat "$PIDFILE" 2>/dev/null) || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "longshored.*$DATA" || return 1
    echo "$pid"
}

start() {
    serve
    load
    say "A container, started through the unmodified docker CLI:"
    docker rm -f web >/dev/null 2>&1 || true
    show docker run -d --name web -p "127.0.0.1:$PORT:80" longshore-demo httpd -f -v -h /www
    show docker ps
    fetch
    say "Output of another:"
    show docker run --rm --hostname demo longshore-demo ip address show eth0
    say "What the start of the first spent its time on:"
    show bin/longshore trace web
    say "The daemon goes on serving. Use it from any shell:"
    echo "export DOCKER_HOST=$DOCKER_HOST"
    echo "End it with: make stop"
}

serve() {
    local pid
    if pid=$(daemon) && docker version >/dev/null 2>&1; then
        say "longshored is already running (process $pid)."
        return
    fi
    mkdir -p "$RUN" "$DATA"
    chmod 711 "$DATA" "$RUN"
    say "Starting longshored; its log is $LOG"
    setsid bin/longshored --data-root "$DATA/data" --exec-root "$RUN/exec" -p "$PIDFILE" -H "$DOCKER_HOST" \
        >>"$LOG" 2>&1 </dev/null &
    pid=$!
    for _ in $(seq 200); do
        docker version >/dev/null 2>&1 && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$LOG" >&2
    die "longshored did not come up"
}

load() {
    if ! docker image inspect longshore-demo >/dev/null 2>&1; then
        say "Building an image from busybox, and loading it:"
        .venv/bin/python tests/harness/images.py "$IMAGE" longshore-demo:latest
        show docker load -q -i "$IMAGE"
    fi
}

fetch() {
    printf '$ curl http://127.0.0.1:%s/\n' "$PORT"
    .venv/bin/python - "$PORT" <<'EOF'
import sys, time, urllib.request
for attempt in range(50):
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        print(opener.open(f"http://127.0.0.1:{sys.argv[1]}/", timeout=5).read().decode(), end="")
        break
    except OSError as error:
        failure = error
        time.sleep(0.1)
else:
    sys.exit(f"demo: the published port does not answer: {failure}")
EOF
}

stop() {
    local pid containers
    if ! pid=$(daemon); then
        [ -e "$DATA" ] || [ -e "$RUN" ] || { echo "The demonstration does not run."; return; }
        bin/longshored --data-root "$DATA/data" --exec-root "$RUN/exec" -p "$PIDFILE" -H "$DOCKER_HOST" \
            >>"$LOG" 2>&1 </dev/null &  # to clean up after one that was killed
        pid=$!
        for _ in $(seq 100); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
    fi
    containers=$(docker ps -aq)
    [ -z "$containers" ] || docker rm -f -v $containers >/dev/null
    docker network prune -f >/dev/null
    kill "$pid"
    for _ in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    ! kill -0 "$pid" 2>/dev/null || die "longshored (process $pid) does not end; see $LOG"
    ! grep -q " $DATA/\| $RUN/" /proc/self/mountinfo || die "something is still mounted below $DATA or $RUN"
    rm -rf --one-file-system "$DATA" "$RUN"
    echo "The demonstration has ended; nothing of it is left."
}

main "$@"
