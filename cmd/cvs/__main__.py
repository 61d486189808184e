"""`python -m cvs`."""

import sys

from cvs.main import main

sys.exit(main())
