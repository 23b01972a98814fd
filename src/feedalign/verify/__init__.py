"""Tools apart from training: does feedback reach the model, and is the rule the rule?"""

from feedalign.verify.rule_check import RuleCheck, check_rule
from feedalign.verify.validation import Validation, validate

__all__ = ["RuleCheck", "Validation", "check_rule", "validate"]
