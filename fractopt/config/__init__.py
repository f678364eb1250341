"""A configuration: one TOML file in, the frozen settings of every part out.

`read` reads and checks it, `tables` says what it may look like, `mistakes` finds words for what is
wrong with it. Only the command line imports this package.
"""
