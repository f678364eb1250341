# What mpirun needs to be told before it starts a run; mpirun refuses without, before fractopt is asked.
#
#     source jobs/env.sh          (from bash, zsh or sh: "." instead of "source" works in all of them)
#     mpirun -n 9 fractopt run jobs/tiny.toml
#
# A value that is already set stays. With another MPI than Open MPI nothing here has any effect.

# Open MPI refuses to run as root unless both are set. Containers often run as root, and there it is
# harmless; for every other user nothing is set.
if [ "$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT="${OMPI_ALLOW_RUN_AS_ROOT:-1}"
    export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="${OMPI_ALLOW_RUN_AS_ROOT_CONFIRM:-1}"
fi

# More ranks than cores: the master sleeps nearly all the time and so do the workers, whose evaluations
# are processes of their own. The first is for Open MPI 5, the second for Open MPI 4.
export PRTE_MCA_rmaps_default_mapping_policy="${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}"
export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe:-1}"

# Do not bind ranks to cores: an evaluation would inherit the single core of its rank. fractopt divides
# the cores of a node among its workers itself. Again for Open MPI 5, then 4.
export PRTE_MCA_hwloc_default_binding_policy="${PRTE_MCA_hwloc_default_binding_policy:-none}"
export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy:-none}"

# Fault tolerance (Open MPI 5): when a rank is lost, the others stay, the master is told, and what was lost
# is evaluated again elsewhere. Without these, mpirun ends the whole job, which can then be resumed; the
# loss of a whole node, and with it of mpirun's daemon there, ends it either way (seen with 5.0.11). With
# them, mpirun returns 0 whatever was lost, even the master: ask the archive how a run ended (fractopt
# status DIR --check).
export PRTE_MCA_state_base_recoverable="${PRTE_MCA_state_base_recoverable:-1}"
export PRTE_MCA_state_base_notify_errors="${PRTE_MCA_state_base_notify_errors:-1}"

# The same for the MPI library: without it, a rank on another node that closes its TCP connection by dying
# takes every rank that talked to it along. mpirun --with-ft ulfm says all three.
export OMPI_MCA_mpi_ft_enable="${OMPI_MCA_mpi_ft_enable:-$PRTE_MCA_state_base_recoverable}"

# mpirun hides the first two from the ranks; this tells fractopt of them.
export FRACTOPT_FAULT_TOLERANT="${FRACTOPT_FAULT_TOLERANT:-$PRTE_MCA_state_base_recoverable}"
