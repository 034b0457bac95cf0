"""stub for import while integrating"""


def check(config):
    raise NotImplementedError
