#!/bin/bash
# {{config}} on OAR: {{workers}} workers with {{each}} each, and the master. Printed by
#     {{command}}
# Make it executable and submit it from the folder in which the paths below are right:
#     chmod +x THIS_FILE
#     oarsub -S "./THIS_FILE [RUN_DIRECTORY [FURTHER OPTIONS OF fractopt run]]"
# Until the run is complete OAR submits the job again; each time it goes on where it stood.

#OAR -n {{name}}
#OAR -l {{resources}},walltime={{walltime}}
# A job of this type that exits with 99, after a minute at least, is submitted again.
#OAR -t idempotent
{{besteffort}}
# SIGUSR2 to this shell {{notice_s}} s before the end, and before a besteffort job is evicted.
#OAR --checkpoint {{notice_s}}
#OAR --signal 12
# Each job that OAR submits again has a number of its own; the log of the run itself is below.
#OAR -O {{name}}.%jobid%.out
#OAR -E {{name}}.%jobid%.out
{{site}}

{{setup}}
for program in mpirun fractopt; do
    command -v "$program" > /dev/null && continue
    echo "no $program in this job: which 'module load' or 'activate' is missing above this line?" >&2
    exit 1
done

CONFIG={{config}}
# Not named after the job: every job of this run goes on in it.
OUT=${1:-{{out}}}
set -- "${@:2}"
# One log for all jobs of this run.
echo "job $OAR_JOB_ID: the log is $OUT.out"
mkdir -p "$(dirname "$OUT")"
exec >> "$OUT.out" 2>&1

# OAR_NODEFILE has a line for each core or GPU. Rank 0 is the master, which takes no GPU: the first node,
# on which this shell runs, gets one rank more.
hosts=$(mktemp)
awk '!seen[$1]++ { print $1, "slots=" {{workers_per_node}} + (++nodes == 1) }' "$OAR_NODEFILE" > "$hosts"
ranks=$(awk -F= '{ n += $2 } END { print n }' "$hosts")

# An evaluation would inherit the core that its rank is bound to; fractopt divides the cores itself.
export PRTE_MCA_hwloc_default_binding_policy=none OMPI_MCA_hwloc_base_binding_policy=none
# Open MPI 5: when a rank is lost, also one on another node, the others go on without it.
export PRTE_MCA_state_base_recoverable=1 PRTE_MCA_state_base_notify_errors=1
export OMPI_MCA_mpi_ft_enable=1 FRACTOPT_FAULT_TOLERANT=1
# Other nodes are reached by oarsh (Open MPI 5, then 4). It hands no environment on: the ranks get what is
# named with -x. If your objective needs more, HF_TOKEN say, name it here.
export PRTE_MCA_plm_ssh_agent=oarsh OMPI_MCA_plm_rsh_agent=oarsh
mpirun --hostfile "$hosts" -n "$ranks" \
    -x PATH -x OMPI_MCA_mpi_ft_enable -x FRACTOPT_FAULT_TOLERANT \
    -x OAR_JOB_ID -x OAR_JOB_WALLTIME_SECONDS -x OAR_ARRAY_ID \
    fractopt run "$CONFIG" --out "$OUT" --resume "$@" &
mpirun=$!
# The time is nearly over: the master stops, closes the archive and ends the others.
trap 'kill -USR2 "$mpirun"' USR2
trap 'kill -TERM "$mpirun" 2> /dev/null' TERM
# A signal interrupts `wait`, which is why it is asked again.
while kill -0 "$mpirun" 2> /dev/null; do wait "$mpirun"; done
rm -f "$hosts"

# mpirun's exit code says nothing of a run that survived a lost rank; the archive does. In a job of OAR
# this is 99 for a run that was stopped and is to be continued.
fractopt status "$OUT" --check
