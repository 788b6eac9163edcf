"""What the command line takes from Hydra's private modules, and nothing else does; a test names what moved."""

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path

__all__ = ["ConfigLoaderImpl", "Hydra", "create_config_search_path"]
