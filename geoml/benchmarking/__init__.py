"""The frame of every benchmark: its entries, the cells that they make, the cache of what is finished."""
