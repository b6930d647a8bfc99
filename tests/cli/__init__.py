"""The command line, judged by what etcdctl says, prints and exits with."""
