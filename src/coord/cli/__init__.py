"""The command line: one command, `coord`, that says, prints and exits as etcdctl does."""
