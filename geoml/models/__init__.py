"""Models: one file each, a YAML of the same stem in `geoml/conf/model/`."""
