"""One home for what results look like on disk: names of files and fields, outcomes and states, tables with versions."""
