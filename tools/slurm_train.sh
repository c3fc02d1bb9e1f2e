#!/usr/bin/env bash
# Trains on a Slurm cluster:   tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), PORT (from the job) and SRUN_ARGS may be set. docs/clusters.md
set -euo pipefail
if [ "$#" -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]" >&2
    exit 2
fi
exec "$(dirname "$0")/slurm_job.sh" train.py "$1" "$2" "$3" --work-dir="$4" --launcher slurm "${@:5}"
