"""The papers' benchmarks: what each consists of, by which protocol it is measured, and what was published."""
