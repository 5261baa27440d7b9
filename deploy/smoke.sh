#!/usr/bin/env bash
# smoke.sh: the whole service on this machine, as compose.yaml would bring it up, without Docker: PostgreSQL, MLflow, a Ray head and two workers
# with the arguments that stand there (ports, folders and addresses replaced), a study through the Jobs API, a night of a sweep. Ends with
# "smoke: all well", or with the reason and exit code 1; takes a few minutes, leaves nothing behind.
# Needs PostgreSQL's programs (Debian: postgresql) and a Python with remedy:  deploy/smoke.sh [PYTHON]      (default: .venv/bin/python)
set -euo pipefail
cd "$(dirname "$0")/.."

python=${1:-.venv/bin/python}
bin=$(cd "$(dirname "$python")" && pwd)
here=$(mktemp -d /tmp/smoke.XXXXXX) # short: Ray's sockets lie below it
declare -A pid=()
step='getting ready'

say() { echo "smoke: $*"; }

# ---------------------------------------------------------------- always cleaned up

finish() {
    local code=$? name
    trap - EXIT
    if [ "$code" -ne 0 ]; then
        for log in "$here"/*.log; do
            # Not `&&`: where the last one is empty, `set -e` would end the cleaning up right here.
            if [ -s "$log" ]; then echo "--- ${log##*/}"; tail -n 25 "$log"; fi
        done
    fi >&2
    # In the reverse order of their start; PostgreSQL last, and by SIGINT, which does not wait for its clients.
    for name in worker-2 worker-1 head mlflow postgres; do
        [ -n "${pid[$name]:-}" ] || continue
        # To the first process alone: it ends its own in order.
        kill -s "$([ "$name" = postgres ] && echo INT || echo TERM)" "${pid[$name]}" 2>/dev/null || true
        for _ in $(seq 60); do
            kill -0 -- "-${pid[$name]}" 2>/dev/null || break
            sleep 0.5
        done
        kill -KILL -- "-${pid[$name]}" 2>/dev/null || true
    done
    rm -rf "$here"
    [ "$code" -eq 0 ] || { say "FAILED while $step (exit code $code)" >&2; exit 1; }
    say "all well"
}
trap finish EXIT
trap 'exit 130' INT TERM

fail() { say "$*" >&2; exit 1; }

# ---------------------------------------------------------------- what compose.yaml says

# The command of a service, one argument a line, with the defaults of its variables.
command_of() {
    "$python" - "$1" <<'PY'
import re, sys, yaml
for part in yaml.safe_load(open("deploy/compose.yaml"))["services"][sys.argv[1]]["command"]:
    print(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", part))
PY
}

# Start a service in a session of its own: start NAME SERVICE [VARIABLE=VALUE ...] -- [replaced or further arguments --key=value ...]
start() {
    local name=$1 service=$2 argument key
    local -a environment=() command=() arguments=()
    shift 2
    while [ "$1" != -- ]; do environment+=("$1"); shift; done
    shift
    mapfile -t command < <(command_of "$service")
    for argument in "${command[@]}"; do
        key=${argument%%=*}
        # Left out where it is replaced.
        [[ $argument == --*=* && " $* " == *" $key="* ]] || arguments+=("$argument")
    done
    # Nothing of this shell's environment but what is said: workers are told no password here either.
    setsid "${as[@]}" env -i PATH="$here/bin:$bin:$PATH" HOME="$here/home" LANG=C.UTF-8 OMP_NUM_THREADS=1 ${PYTHONPATH:+"PYTHONPATH=$PYTHONPATH"} \
        "${environment[@]}" "${arguments[@]}" "$@" >"$here/$name.log" 2>&1 &
    pid[$name]=$!
}

# until_true SECONDS WHAT COMMAND...: wait until a command succeeds.
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "$what: not within the time allowed"
        sleep 0.5
    done
}

asks() { # asks URL [HEADER ...]: is it answered with 200?
    "$python" - "$@" <<'PY'
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1], headers=dict(h.split(": ", 1) for h in sys.argv[2:])), timeout=10)
PY
}

mapfile -t port < <("$python" - 22 <<'PY'
# Free ports outside of Ray's 10002-19999 and of the range that the kernel gives to clients.
import random, socket, sys
found = []
while len(found) < int(sys.argv[1]):
    port = random.randrange(20000, 32000)
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
    if port not in found:
        found.append(port)
print(*found, sep="\n")
PY
)
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
POSTGRES_PASSWORD=$(secret) REMEDY_DB_PASSWORD=$(secret) MLFLOW_DB_PASSWORD=$(secret) RAY_AUTH_TOKEN=$(secret)
export POSTGRES_PASSWORD REMEDY_DB_PASSWORD MLFLOW_DB_PASSWORD RAY_AUTH_TOKEN
mkdir -p "$here"/{bin,home,reports,artifacts,state,database}
# shellcheck disable=SC2016
printf '#!/bin/sh\nexec "%s" -m remedy "$@"\n' "$bin/${python##*/}" >"$here/bin/remedy"
chmod +x "$here/bin/remedy"

# ---------------------------------------------------------------- PostgreSQL

step='starting PostgreSQL'
as=()
for programs in /usr/lib/postgresql/*/bin; do PATH=$PATH:$programs; done # where Debian puts them
command -v initdb >/dev/null || fail "PostgreSQL is not installed (Debian: apt-get install postgresql)"
if [ "$(id -u)" -eq 0 ]; then # it refuses to be root
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
    chmod 711 "$here"
    chown postgres "$here/database"
fi
(umask 077 && printf %s "$POSTGRES_PASSWORD" >"$here/database/password" && { [ "$(id -u)" -ne 0 ] || chown postgres "$here/database/password"; })
"${as[@]}" initdb --pgdata="$here/database/data" --username=postgres --pwfile="$here/database/password" --auth-local=trust --auth-host=scram-sha-256 \
    --data-checksums >"$here/initdb.log" 2>&1
start postgres postgres -- -D "$here/database/data" -c port="${port[0]}" -c listen_addresses=127.0.0.1 -c unix_socket_directories="$here/database"
as=()
until_true 60 PostgreSQL pg_isready --host=127.0.0.1 --port="${port[0]}"
PGHOST=$here/database PGPORT=${port[0]} deploy/kubernetes/base/postgres-init.sh
say "PostgreSQL has its databases"

# ---------------------------------------------------------------- MLflow

step='starting MLflow'
mlflow=http://127.0.0.1:${port[1]}
start mlflow mlflow "MLFLOW_BACKEND_STORE_URI=postgresql+psycopg://mlflow:$MLFLOW_DB_PASSWORD@127.0.0.1:${port[0]}/mlflow" \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false MLFLOW_DISABLE_TELEMETRY=true \
    -- --host=127.0.0.1 --port="${port[1]}" --artifacts-destination="$here/artifacts"
until_true 120 MLflow asks "$mlflow/api/2.0/mlflow/experiments/search?max_results=1" "Host: mlflow:5000"
say "MLflow answers to its Service's name"

# ---------------------------------------------------------------- Ray

step='starting the Ray head'
export REMEDY_STORAGE=postgresql://remedy:$REMEDY_DB_PASSWORD@127.0.0.1:${port[0]}/optuna MLFLOW_TRACKING_URI=$mlflow
export REMEDY_ADDRESS=http://127.0.0.1:${port[3]} RAY_AUTH_MODE=token
ray=(RAY_AUTH_MODE=token "RAY_AUTH_TOKEN=$RAY_AUTH_TOKEN" RAY_memory_usage_threshold=0.99)
start head ray-head "${ray[@]}" "REMEDY_STORAGE=$REMEDY_STORAGE" "MLFLOW_TRACKING_URI=$mlflow" "REMEDY_HOME=$here/state" \
    "REMEDY_METRICS=127.0.0.1:${port[4]}-$((port[4] + 7))" \
    -- --port="${port[2]}" --dashboard-host=127.0.0.1 --dashboard-port="${port[3]}" --object-manager-port="${port[5]}" \
    --node-manager-port="${port[6]}" --dashboard-agent-listen-port="${port[7]}" --dashboard-agent-grpc-port="${port[8]}" \
    --runtime-env-agent-port="${port[9]}" --metrics-export-port="${port[10]}" --object-store-memory=100000000 --temp-dir="$here/ray"
until_true 120 "the Ray head" asks "$REMEDY_ADDRESS/api/version" "Authorization: Bearer $RAY_AUTH_TOKEN"
if asks "$REMEDY_ADDRESS/api/version" 2>/dev/null; then fail "the Ray head answers without the token"; fi

step='starting the Ray workers'
for number in 1 2; do
    first=$((11 + 5 * (number - 1)))
    # A folder each, as in containers: started at once in one folder, they take the same names for their sockets.
    start "worker-$number" ray-worker "${ray[@]}" \
        -- --address=127.0.0.1:"${port[2]}" --num-cpus=1 --temp-dir="$here/w$number" \
        --object-manager-port="${port[$first]}" --node-manager-port="${port[$((first + 1))]}" --dashboard-agent-listen-port="${port[$((first + 2))]}" --dashboard-agent-grpc-port="${port[$((first + 3))]}" \
        --runtime-env-agent-port="${port[$((first + 4))]}" --metrics-export-port=0 --object-store-memory=100000000
done
nodes() { # is the head alive, with two workers?
    "$python" - "$REMEDY_ADDRESS/nodes?view=summary" "$RAY_AUTH_TOKEN" <<'PY'
import json, sys, urllib.request
asked = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {sys.argv[2]}"})
nodes = json.load(urllib.request.urlopen(asked, timeout=10))["data"]["summary"]
sys.exit(sum(node["raylet"].get("state") == "ALIVE" for node in nodes) != 3)
PY
}
until_true 120 "two Ray workers" nodes
say "Ray has a head and two workers, and wants the token"

# ---------------------------------------------------------------- a study through the Jobs API

export PATH=$here/bin:$PATH HOME=$here/home REMEDY_HOME=$here/client
step='asking remedy doctor'
# Its answers have a limit of seconds, and a small machine that has just begun all of this may be late.
remedy doctor || remedy doctor || remedy doctor
step='submitting a study'
remedy submit --address "$REMEDY_ADDRESS" examples/wide_softmax.py:training --name smoke --fixes 1 --budget 60 --workers 2 --detach
step='waiting for the study'
timeout 900 remedy wait smoke
step='reading its report'
remedy report smoke
remedy report smoke --format json >"$here/report.json"
"$python" - "$here/report.json" "$mlflow" <<'PY'
import json, sys, urllib.request

report = json.load(open(sys.argv[1]))
assert report["exit_code"] == 0 and report["fixes"][0]["confirmed"], "no fix was confirmed"
parent = report["mlflow"]["parent_run_id"]
asked = {"max_results": 1000, "filter": f"tags.mlflow.parentRunId = '{parent}'"}
get = lambda what, data: json.load(urllib.request.urlopen(urllib.request.Request(
    f"{sys.argv[2]}/api/2.0/mlflow/{what}", json.dumps(data).encode() if data else None, {"Content-Type": "application/json"}), timeout=60))
asked["experiment_ids"] = [get(f"runs/get?run_id={parent}", None)["run"]["info"]["experiment_id"]]
children = get("runs/search", asked)["runs"]
assert len(children) == report["runs"]["total"], f"MLflow has {len(children)} of {report['runs']['total']} runs"
print(f"smoke: the study has a confirmed fix, and MLflow all of its {len(children)} runs")
PY

# ---------------------------------------------------------------- a night of a sweep

step='running a night of the sweep'
REMEDY_REPORTS=$here/reports timeout 1800 deploy/docker/remedy-nightly once deploy/sweep.yaml
step='checking the morning report'
"$python" - "$here/reports" <<'PY'
import json, pathlib, sys, xml.etree.ElementTree as tree

reports = pathlib.Path(sys.argv[1])
json.loads((reports / "morning.json").read_text())
cases = tree.parse(reports / "morning.xml").getroot().findall(".//testcase")
assert len(cases) >= 2, f"the JUnit report has {len(cases)} test cases, for 2 trainings"
page = (reports / "morning.html").read_text()
assert "wide_softmax" in page and "healthy" in page, "the HTML report does not name both trainings"
assert (reports / "morning.md").read_text().strip() and (reports / "morning.txt").read_text().strip()
print("smoke: the night has its report, in all formats")
PY
step='cleaning up'
