"""What has happened, durably: states, records, the store of instances, claims and leases. The only home of SQL."""
