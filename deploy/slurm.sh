#!/usr/bin/env bash
# The same command on the nodes of a Slurm job, which see SOURCE and OUT at the same paths:
#   sbatch --nodes 4 deploy/slurm.sh render mimic:/data/mimic-iv-ecg /data/pages --layout mixed --style mixed
#SBATCH --job-name=ecg-vlm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --mem-per-cpu=2G
#SBATCH --time=12:00:00
#SBATCH --requeue
set -euo pipefail

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000)) # two jobs may share a node
export RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1
# Only who knows the token may send work to the nodes.
RAY_AUTH_TOKEN=$(python3 -c "import secrets; print(secrets.token_hex(32))")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

# Starts Ray on every node, runs the command on the first, and stops Ray. --resume: a job that was put back into the queue goes on.
srun ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" --num-cpus "$SLURM_CPUS_PER_TASK" -- \
    ecg-vlm "$@" --engine ray --address "$head:$port" --resume
