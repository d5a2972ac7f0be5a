"""The history of the catalog's schema, one file per step, run by `index.database`."""
