"""What the service costs and how fast it is, beside OpenStack Glance and nginx in the same run.

Only measuring belongs here: whether an answer is right is the business of `tests`.
"""
