import argparse
import logging
import warnings

from geoml.errors import UserError


def fit(config, folder):
    logging.getLogger("geoml.toy").info("fitting %s", config.region.name)
    logging.getLogger("chatty").info("noise")
    if config.fail == "user":
        raise UserError("the data are on fire; call the fire brigade")
    if config.fail == "bug":
        raise ZeroDivisionError("one over nothing")
    if config.fail == "interrupt":
        raise KeyboardInterrupt
    warnings.warn("slightly odd", stacklevel=1)
    folder.metrics.append(samples=config.samples, loss=1 / config.model.width)
    return [{"region": config.region.name, "loss": 1 / config.model.width}]


def look(config):
    return [{"name": config.region.name, "double": config.region.double}]


def listing(arguments):
    parser = argparse.ArgumentParser(prog="toyapp list")
    parser.add_argument("--json", action="store_true")
    if parser.parse_args(arguments).json:
        print('["north"]')
        return None
    return [{"name": "north", "lat": 60.0}]
