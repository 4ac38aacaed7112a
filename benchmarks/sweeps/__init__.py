"""The arms of `benchmarks.makespan`: a whole sweep each, every process and import included."""
