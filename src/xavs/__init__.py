"""The deployer: from an operator's globals to the files of a node and the facts of its container.

It stands on the control host and needs nothing of the service but `config`, which knows its configuration file.
`render.render` is the way in; `variables` is the one table of what globals may say.
"""
