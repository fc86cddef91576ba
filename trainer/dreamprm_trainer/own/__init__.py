"""`dreamprm train REPO`: a reward model for a repository's own code.

`options` says what is asked, `estimate` what it would cost, `attempts` spends the budget on labels, `pipeline` goes
from mining to the checkpoint, `report` says what it is worth on held-out functions, and `default` makes it
the repository's.
"""
