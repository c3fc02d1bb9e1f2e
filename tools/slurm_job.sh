#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh share:   tools/slurm_job.sh TOOL PARTITION JOB_NAME CONFIG [arguments of the tool]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS may be set.
set -euo pipefail
if [ "$#" -lt 4 ]; then
    echo "usage: $0 TOOL PARTITION JOB_NAME CONFIG [arguments of the tool]" >&2
    exit 2
fi
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
if [ "$GPUS" -lt "$GPUS_PER_NODE" ]; then GPUS_PER_NODE=$GPUS; fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
# read by the processes: jobs on one node must not share it. srun's own job number is known inside an allocation only
export MASTER_PORT=${PORT:-$((20000 + ${SLURM_JOB_ID:-$$} % 20000))}
# SRUN_ARGS is meant to be split into words
# shellcheck disable=SC2086
exec srun -p "$2" \
    --job-name="$3" \
    --gres="gpu:$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/$1" "${@:4}"
