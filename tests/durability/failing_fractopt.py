"""`fractopt run` under mpirun, but for an exit with an error at SIGALRM.

    mpirun -n N python failing_fractopt.py ARGUMENTS

No signal makes an ordinary rank exit with an error, which is the death that MPI does not report.
"""

import os
import signal
import sys

from fractopt.cli.run import run
from fractopt.parallel.launch import check_mpi

if __name__ == "__main__":
    signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    check_mpi()
    run(sys.argv[1:])
