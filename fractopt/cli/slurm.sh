#!/bin/bash
# {{config}} on SLURM: {{workers}} workers with a GPU each, and the master. Printed by
#     {{command}}
# Submit it from the folder in which the paths below are right:  sbatch THIS_FILE [RUN_DIRECTORY]
# Until the run is complete the job requeues itself; each time it goes on where it stood.

#SBATCH --job-name={{name}}
#SBATCH --nodes={{nodes}}
# One rank more than GPUs: rank 0 is the master, which takes none and sleeps nearly all the time.
#SBATCH --ntasks={{ranks}}
# Without this SLURM would fill the first node and leave GPUs of the last one idle.
#SBATCH --ntasks-per-node={{ranks_per_node}}
#SBATCH --gres=gpu:{{gpus}}
# Cores of a worker's evaluation: data loading and scoring want some beside the GPU.
#SBATCH --cpus-per-task={{cores}}
#SBATCH --time={{walltime}}
# This shell alone (B) is told 300 s before the end; SLURM may be a minute early or late.
#SBATCH --signal=B:USR1@{{notice_s}}
# After a node failure or a preemption the same job comes again, with the same output file.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
{{site}}
{{setup}}
CONFIG={{config}}
# Not named after the job: every job of this run goes on in it.
OUT=${1:-{{out}}}

# An evaluation would inherit the core that its rank is bound to; fractopt divides the cores itself.
export PRTE_MCA_hwloc_default_binding_policy=none
# Open MPI 5: when a rank or a node is lost, the others go on without it.
export PRTE_MCA_state_base_recoverable=1 PRTE_MCA_state_base_notify_errors=1 FRACTOPT_FAULT_TOLERANT=1

cancelled=
mpirun -n "$SLURM_NTASKS" fractopt run "$CONFIG" --out "$OUT" --resume &
mpirun=$!
# The time is nearly over: the master stops, closes the archive and ends the others.
trap 'kill -USR1 "$mpirun"' USR1
# scancel, a preemption or a requeue from outside: SLURM decides what becomes of the job, not we.
trap 'cancelled=1; kill -TERM "$mpirun"' TERM
# A signal interrupts `wait`, which is why it is asked again.
while kill -0 "$mpirun" 2>/dev/null; do wait "$mpirun"; done

# mpirun's exit code says nothing of a run that survived a lost rank; the archive does.
fractopt status "$OUT" --check
code=$?
# 75: stopped, and to be continued. A job that ended in its first minute is not helped by another one.
if [ "$code" = 75 ] && [ -z "$cancelled" ] && [ "$SECONDS" -gt "${SHORTEST_S:-60}" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
