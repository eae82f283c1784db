"""The science of self-consuming loops of diffusion models: plain PyTorch, no Prefect.

Modules that a cached run needs (errors, digest, config, store, stages, loop, report) import neither
torch nor diffusers, so that a run which only reads the store starts fast.
"""

from sims_core.common.instructions import pin_instructions

pin_instructions()  # before any module below imports NumPy or torch
del pin_instructions
