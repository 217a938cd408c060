"""``python -m acr_ray NAME …`` does the same as ``acr-ray NAME …``."""

import sys

from acr_ray.cli.app import main

sys.exit(main())
