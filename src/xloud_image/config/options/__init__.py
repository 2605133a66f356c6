"""Every option that a configuration file may hold: `table` has those of the service, `stores` those of stores."""
