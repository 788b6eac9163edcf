import sys

from geoml.cli.app import main
from geoml.cli.definitions import App, Verb

APP = App(
    name="toyapp",
    config_module="toyapp.conf",
    help="a toy",
    verbs=(
        Verb("fit", "toyapp.verbs:fit", help="Fit a line", example="toyapp fit region=north model=large"),
        Verb("look", "toyapp.verbs:look", help="Look at a region", run_folder=False),
        Verb("list", "toyapp.verbs:listing", help="List regions", plain=True),
        Verb("far", "toyapp.far_away:go", help="Needs what is not installed", plain=True),
        Verb("bare", "toyapp.verbs:look", help="Its YAML forgot the base"),
    ),
)

if __name__ == "__main__":
    sys.exit(main(APP))
