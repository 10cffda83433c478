"""The daemon: everything that knows Kafka, SQL, HTTP servers, files or the time."""

__version__ = "0.1.0"

from os import environ as _environ

# The products here are small: threads of BLAS would spin more than they work (2.3 times the CPU was measured), and
# sums would depend on their number. This comes before the first import of numpy; who sets a number keeps it.
_environ.setdefault("OPENBLAS_NUM_THREADS", "1")
_environ.setdefault("OMP_NUM_THREADS", "1")
_environ.setdefault("MKL_NUM_THREADS", "1")
