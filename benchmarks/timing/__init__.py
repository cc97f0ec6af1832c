"""What the benchmark scripts share: workloads, the clock, the peers, statistics and tables."""
