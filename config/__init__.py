"""What a site may change: frozen, typed settings. `default.toml` is also the manual."""

from config.load import ConfigError, load_settings, origins
from config.settings import Settings

__all__ = ["ConfigError", "Settings", "load_settings", "origins"]
