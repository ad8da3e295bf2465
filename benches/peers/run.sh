#!/bin/sh
# Times `curvkit bench gemm|hvp|train` and the same work in PyTorch and JAX, taking turns on one machine, and
# writes OUT/results.jsonl (every row of every round), OUT/results.json and OUT/tables.md.
#
#   benches/peers/run.sh OUT
#
# PYTHON      an interpreter that has torch and jax; else a virtual environment is made beside this script
# CURVKIT     the binary (target/release/curvkit, built where it is missing)
# ROUNDS      3; the best of all rounds counts
# SUBJECTS    "gemm hvp train"
# FRAMEWORKS  "torch-eager torch-compile jax-jit"
# ADAPTER     curvkit's adapter, by name or index
# THREADS     2: cores for whatever runs on the CPU
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
out=${1:?usage: run.sh OUT}
rounds=${ROUNDS:-3}
threads=${THREADS:-2}
mkdir -p "$out"

python=${PYTHON:-python3}
if ! "$python" -c 'import numpy, torch, jax' 2>/dev/null; then
    python=$here/.venv/bin/python
    if ! "$python" -c 'import numpy, torch, jax' 2>/dev/null; then
        echo "peers: making $here/.venv" >&2
        "${PYTHON:-python3}" -m venv "$here/.venv"
        "$python" -m pip install --quiet -r "$here/requirements.txt"
        if command -v nvidia-smi >/dev/null; then "$python" -m pip install --quiet 'jax[cuda12]'; fi
    fi
fi
curvkit=${CURVKIT:-$root/target/release/curvkit}
[ -x "$curvkit" ] || (cd "$root" && cargo build --release --quiet)

LP_NUM_THREADS=$threads
export LP_NUM_THREADS
results=$out/results.jsonl
: >"$results"

# wrap FRAMEWORK SUBJECT ROUND: standard input as lines of results.jsonl
wrap() {
    "$python" "$here/tables.py" wrap "$1" "$2" "$3" >>"$results"
}

round=1
while [ "$round" -le "$rounds" ]; do
    for subject in ${SUBJECTS:-gemm hvp train}; do
        echo "peers: round $round of $rounds, $subject" >&2
        "$curvkit" bench "$subject" --json ${ADAPTER:+--adapter "$ADAPTER"} | wrap curvkit "$subject" "$round"
        # peers make the products that ours made
        sizes=$("$python" "$here/tables.py" sizes "$results")
        for framework in ${FRAMEWORKS:-torch-eager torch-compile jax-jit}; do
            "$python" -W ignore "$here/peers.py" "$subject" --framework "$framework" --threads "$threads" \
                --sizes "$sizes" | wrap "$framework" "$subject" "$round"
        done
    done
    round=$((round + 1))
done
"$python" "$here/tables.py" tables "$out" --version "$(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)"
echo "peers: $out/tables.md" >&2
