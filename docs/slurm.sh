#!/bin/bash
# Workers of a job array on one plan:
#   sbatch --wait --gpus=1 --wrap "vpbench plan --config sweep.toml --out out/k400"
#   sbatch --array=0-63 slurm.sh --config sweep.toml --out out/k400
#   vpbench finish out/k400
#SBATCH --gpus-per-task=1 --cpus-per-task=8 --time=08:00:00
#SBATCH --requeue
exec vpbench sweep "$@" --shard slurm
