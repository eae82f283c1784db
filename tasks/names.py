"""What the server's things for arms are called; imports nothing."""

from __future__ import annotations

ARMS_POOL = "sims-arms"
"""Work pool whose workers compute arms."""
ARM_DEPLOYMENT = "arm"
"""The deployment whose runs are arms; its flow is called the same."""
ARM_TAG = "sims-arm"
"""Tag of every run of that deployment: what takes over lost runs knows them by it."""
