#!/bin/bash
# jobs/llama.toml on SLURM: 8 workers with a GPU each, and the master. Printed by
#     fractopt job slurm jobs/llama.toml --nodes 2 --gpus 4 --walltime 12h --setup '. .venv/bin/activate'
# Submit it from the folder in which the paths below are right:
#     sbatch THIS_FILE [RUN_DIRECTORY [FURTHER OPTIONS OF fractopt run]]
#     sbatch --array=0-9 THIS_FILE        # ten runs: each with its number as seed, in a directory of its own
# Until the run is complete the job requeues itself; each time it goes on where it stood.

#SBATCH --job-name=llama
#SBATCH --nodes=2
#SBATCH --gres=gpu:4
# On each node, room for one rank more than workers: rank 0 is the master, which takes no GPU and sleeps nearly
# all the time. Said for each node: SLURM would fill the first one and leave GPUs of the last one idle.
#SBATCH --ntasks-per-node=5
# 8 cores for each GPU of a node, divided by its ranks; fractopt gives them to the workers alone.
#SBATCH --cpus-per-task=6
#SBATCH --time=12:00:00
# This shell alone (B) is told 120 s before the end; SLURM may be a minute early.
#SBATCH --signal=B:USR1@120
# After a node failure or a preemption the same job comes again, with the same output file.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
# For a job that starts sooner, but that others may preempt, take one # away. The name is yours:
##SBATCH --qos=preempt

. .venv/bin/activate
for program in mpirun fractopt; do
    command -v "$program" > /dev/null && continue
    echo "no $program in this job: which 'module load' or 'activate' is missing above this line?" >&2
    exit 1
done

CONFIG=jobs/llama.toml
# Not named after the job: every job of this run goes on in it.
OUT=${1:-runs/llama}
set -- "${@:2}"
if [ -n "$SLURM_ARRAY_TASK_ID" ]; then
    OUT=$OUT-seed$SLURM_ARRAY_TASK_ID
    set -- --seed "$SLURM_ARRAY_TASK_ID" "$@"
fi

# An evaluation would inherit the core that its rank is bound to; fractopt divides the cores itself.
export PRTE_MCA_hwloc_default_binding_policy=none OMPI_MCA_hwloc_base_binding_policy=none
# Open MPI 5: when a rank is lost, also one on another node, the others go on without it.
export PRTE_MCA_state_base_recoverable=1 PRTE_MCA_state_base_notify_errors=1
export OMPI_MCA_mpi_ft_enable=1 FRACTOPT_FAULT_TOLERANT=1

# For `walltime = "auto"`: an older SLURM does not tell a job when it ends. (date takes "" for midnight.)
if [ -z "$SLURM_JOB_END_TIME" ]; then
    end=$(squeue -h -j "$SLURM_JOB_ID" -o %e)
    [ -n "$end" ] && SLURM_JOB_END_TIME=$(date +%s -d "$end" 2> /dev/null) && export SLURM_JOB_END_TIME
fi

cancelled=
mpirun -n 9 fractopt run "$CONFIG" --out "$OUT" --resume "$@" &
mpirun=$!
# The time is nearly over: the master stops, closes the archive and ends the others.
trap 'kill -USR1 "$mpirun"' USR1
# scancel, a preemption or a requeue from outside: SLURM decides what becomes of the job, not we.
trap 'cancelled=1; kill -TERM "$mpirun" 2> /dev/null' TERM
# A signal interrupts `wait`, which is why it is asked again.
while kill -0 "$mpirun" 2> /dev/null; do wait "$mpirun"; done

# mpirun's exit code says nothing of a run that survived a lost rank; the archive does.
fractopt status "$OUT" --check
code=$?
# 75: stopped, and to be continued. A job that ended in its first minute is not helped by another one.
if [ "$code" = 75 ] && [ -z "$cancelled" ] && [ "$SECONDS" -gt "${SHORTEST_S:-60}" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
