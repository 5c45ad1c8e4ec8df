"""Gymnasium environments over recorded or simulated answers; importing this package registers their ids.

`gymnasium.make("simulators.envs:QueryRouting-v0")`, or `import simulators.envs` and the id alone. (Gymnasium 1.0 took
away the entry points by which a package's environments were found without an import.)
"""

from simulators.envs.registration import QUERY_ROUTING, THRESHOLD_TUNING, register_environments

__all__ = ["QUERY_ROUTING", "THRESHOLD_TUNING", "register_environments"]

register_environments()
