"""The DAG's nodes: thin Prefect tasks round the stages of sims_core."""
