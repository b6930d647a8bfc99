"""The client library. `coord.connect` opens the Trio client, `coord.connect_sync` the blocking one."""
