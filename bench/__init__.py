"""The benchmark: one small server and one small client in every library, driven alike.

``python -m bench`` measures; docs/benchmarks.md says what each figure means. Nothing here asserts a
time: it prints the targets beside what was measured.
"""
