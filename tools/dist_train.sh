#!/usr/bin/env bash
# Trains on several GPUs:   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# On several machines, start it on each with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
set -euo pipefail
if [ "$#" -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
# two jobs on one machine need two ports; a Slurm job has its own
if [ -n "${SLURM_JOB_ID:-}" ]; then PORT=${PORT:-$((20000 + SLURM_JOB_ID % 20000))}; fi
PORT=${PORT:-29500}
if [ "${NODE_RANK:-0}" = 0 ] && (exec 3<> "/dev/tcp/127.0.0.1/$PORT") 2> /dev/null; then
    echo "error: port $PORT is taken, probably by another job on this machine; choose one: PORT=$((PORT + 100)) $0 ..." >&2
    exit 1
fi
# more threads per process fight over the cores
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="$PORT" \
    --nproc_per_node="$GPUS" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "${@:3}"
