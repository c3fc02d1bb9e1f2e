#!/usr/bin/env bash
# Tests on a Slurm cluster:   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), PORT (from the job) and SRUN_ARGS may be set. docs/clusters.md
set -euo pipefail
if [ "$#" -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]" >&2
    exit 2
fi
exec "$(dirname "$0")/slurm_job.sh" test.py "$1" "$2" "$3" "$4" --launcher slurm "${@:5}"
