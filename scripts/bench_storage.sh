#!/usr/bin/env bash
# The numbers of docs/benchmarks.md on storage backends: file, Mooncake and AIBrix beside their limits.
#     scripts/bench_storage.sh OUT [DIRECTORY]      DIRECTORY: on the file system to measure
set -uo pipefail
OUT=$1
ROOT=${2:-$(mktemp -d)}
PYTHON=${PYTHON:-python3}
PORT=${PORT:-50951}
mkdir -p "$OUT" "$ROOT"
export COLUMNS=110

# bench NAME BACKEND CONFIG FLAG...
bench() {
    local name=$1 backend=$2 config=$3
    shift 3
    echo "== $name"
    "$PYTHON" -m kvloop.cli bench storage --backend "$backend" --extra-config "$config" "$@" \
        --json "$OUT/$name.json" 2>"$OUT/$name.err" | tee "$OUT/$name.txt"
}

file="{\"root\": \"$ROOT/file\"}"
bench file_1MiB file "$file" --rounds 7
bench file_1MiB_2_calls file "$file" --rounds 7 --threads 2
bench file_4MiB_2_calls file "$file" --rounds 7 --threads 2 --page-bytes 4194304

"$PYTHON" -m kvloop.cli store --port "$PORT" --metrics-port $((PORT + 1)) --segment-size 6 \
    >"$OUT/store.log" 2>&1 &
store=$!
trap 'kill $store 2>/dev/null' EXIT
for _ in $(seq 100); do grep -q "store ready" "$OUT/store.log" && break; sleep 0.2; done
mooncake="{\"master_server_address\": \"127.0.0.1:$PORT\"}"
bench mooncake_1MiB mooncake "$mooncake" --rounds 9
bench mooncake_1MiB_2_calls mooncake "$mooncake" --rounds 9 --threads 2
bench mooncake_256KiB mooncake "$mooncake" --rounds 9 --page-bytes 262144 --pages-per-batch 128

for kind in SHFS ROCKSDB; do
    config="{\"l2_cache_backend\": \"$kind\", \"root\": \"$ROOT/aibrix-$kind\"}"
    bench "aibrix_$kind" aibrix "$config" --rounds 3 --total-bytes 268435456
done
