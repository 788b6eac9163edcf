"""Print the table of cases, or write its page."""

import sys

from tests.rainshift.reading_cases import INTRODUCTION, PAGE, table

if "--page" in sys.argv[1:]:
    PAGE.write_text(INTRODUCTION + table())
else:
    print(table(), end="")
