"""What the `oslopolicy-…` commands ask for by `--namespace glance`: the rules, and an enforcer with the operator's
files. The service itself asks neither.
"""

from __future__ import annotations

import sys
from typing import Any

from oslo_config import cfg
from oslo_policy import opts
from oslo_policy import policy as oslo

from xloud_image.policy.rules import RULES


def list_rules() -> list[Any]:
    """The rules with their defaults, as oslo.policy knows them."""
    return [rule.default() for rule in RULES]


def get_enforcer() -> Any:
    """An enforcer that reads what `--config-file` and `--config-dir` of the command name, else those of /etc/glance."""
    opts.set_defaults(cfg.CONF, policy_file="policy.yaml")
    cfg.CONF(sys.argv[1:], project="glance", prog="glance-api")  # the command's own, in which it looks on
    enforcer = oslo.Enforcer(cfg.CONF)
    enforcer.register_defaults(list_rules())
    return enforcer
