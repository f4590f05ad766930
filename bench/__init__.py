"""Benchmarks of the ops against the best peers, as data: ops, providers, a runner, ceilings and reports.

Installed as ``recsparse.bench``. An op (``bench/ops``) says what is computed, on which cases, how many bytes it must
move and what the right answer is; a provider (``bench/providers``) is one way to compute it. The runner refuses to time
a provider whose answer is wrong, and times all providers of a case interleaved in one run.
"""
