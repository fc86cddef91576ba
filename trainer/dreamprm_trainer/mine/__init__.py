"""A git repository -> tasks with tests.

`repository` reads objects, `functions` finds what can be a task, `usage` which tests and functions name it, `statement`
says in words what is wanted, `split` and `duplicates` keep the held-out part apart, `history` knows what fixed what,
`suite` which tests exercise which function, `negatives` what those tests refuse, `placing` puts programs in
place, `tasks` puts it all together.
Nothing of the repository is ever run on this machine: tests run in `dreamprm_sandbox.workshop`.
"""
