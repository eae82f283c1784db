"""What runs: Prefect flows that compose tasks. No torch, no paths."""
