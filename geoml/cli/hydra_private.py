"""The names imported from Hydra's private modules; a test reports names that a new version of Hydra has moved."""

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path

__all__ = ["ConfigLoaderImpl", "Hydra", "create_config_search_path"]
