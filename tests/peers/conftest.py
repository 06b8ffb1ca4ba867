"""What the tests against archives of others start from."""

from tests.support.started_nodes import models_dir, start_node  # noqa: F401  fixtures
