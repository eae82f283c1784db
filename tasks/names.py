"""What the server's things for arms are called; imports nothing."""

from __future__ import annotations

ARMS_POOL = "sims-arms"
"""Work pool whose workers compute arms."""
ARM_DEPLOYMENT = "arm"
"""The deployment whose runs are arms; its flow is called the same."""
ARM_TAG = "sims-arm"
"""Tag of every run of that deployment."""
HEARTBEAT = "prefect.flow-run.heartbeat"
"""The event by which a flow run shows that its process lives."""
SILENT = "no sign of life"
"""How the message begins with which an automation marks a silent run Crashed."""
