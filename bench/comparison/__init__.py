"""Our optimizers against the ones that researchers use; `python -m bench.comparison -h` says how."""

import os

# One BLAS thread for every method, before anything imports numpy.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"
