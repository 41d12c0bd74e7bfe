#!/usr/bin/env bash
# Measures what docs/benchmarks.md states about the CPU, in pieces that each take a minute or two:
#
#   docs/results/cpu.sh all                       # everything, then the chart
#   docs/results/cpu.sh layer                     # one piece: layer, linear, pytorch, model, chart
#
# DTYPES, LENGTHS and ROUNDS limit `layer`. SPARQ names the program (default: target/release/sparq),
# PYTHON a Python with torch (for `pytorch`; `pip install torch==2.15.0 numpy==2.4.6`), OUT the folder for
# results (default: cpu, beside this file), COMMIT the commit that the program was built from (default: that of
# the checkout). Nothing else should run on the machine meanwhile; on a machine of many cores take a few of them
# with `taskset -c 0,1 docs/results/cpu.sh all`.
set -euo pipefail
cd "$(dirname "$0")"
sparq=${SPARQ:-../../target/release/sparq}
python=${PYTHON:-python3}
out=${OUT:-cpu}
threads=$(nproc)
export RAYON_NUM_THREADS=$threads OMP_NUM_THREADS=$threads
mkdir -p "$out"

# Runs a command and keeps its output once it is complete.
keep() {
  local name=$1
  shift
  "$@" >"$out/$name.tmp"
  mv "$out/$name.tmp" "$out/$name.json"
  echo "$out/$name.json"
}

machine() {
  {
    echo "cpu:     $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $threads threads"
    echo "caches:  $(lscpu | sed -n 's/^\(L[123][di]* cache\): *\(.*\)/\1 \2/p' | paste -sd ';')"
    echo "vectors: $(grep -o -w -m1 -E 'avx512f|avx2|asimd' /proc/cpuinfo | sort -u | paste -sd ' ')"
    echo "memory:  $(sed -n 's/^MemTotal: *//p' /proc/meminfo)"
    echo "system:  $(uname -sr)"
    echo "sparq:   $("$sparq" --version), commit ${COMMIT:-$(git rev-parse --short HEAD)}"
  } >"$out/machine.txt"
  cat "$out/machine.txt"
}

layer() {
  for dtype in ${DTYPES:-f32 f16 bf16}; do
    keep "layer-$dtype" "$sparq" bench attention -s "${LENGTHS:-512,1024,2048,4096,8192,16384}" --heads 32,32/8 \
      --dtype "$dtype" -r "${ROUNDS:-15}" -o json --attention dense,sparq,sparq:topk=buckets,sparq:kt=int8,sparq:kt=int4
  done
}
linear() {
  local sizes=4096x4096,4096x14336
  keep linear "$sparq" bench linear --size $sizes --dtype f32,f16,bf16 -r 15 -o json
  keep linear-int8 "$sparq" bench linear --size $sizes --weights int8 -r 15 -o json
}
pytorch() { keep pytorch "$python" pytorch.py --threads "$threads"; }
model() {
  local run=("$sparq" bench --shape llama-2-7b --layers 4 --dtype bf16 -p 0 -n 16 -d 16384 --random-cache -r 3 -o json)
  keep model "${run[@]}" --attention dense,sparq:r=32:k=128
  keep model-int8 "${run[@]}" --attention dense,sparq:r=32:k=128,sparq:r=32:k=128:kt=int8 --weights int8
}
chart() { "$python" chart.py "$out"; }

case ${1:-all} in
  all) machine; layer; linear; pytorch; model; chart ;;
  machine | layer | linear | pytorch | model | chart) "$1" ;;
  *) echo "no such piece: $1" >&2; exit 2 ;;
esac
