"""The parameters that each flow takes, as a function of the flow's name that returns them.

Nothing here imports Prefect: the command line checks parameters without it, and a run that finds
everything in the store never needs it. The flows themselves are made from these signatures.
"""
