"""To try things out: the demonstration, probes, studies and certificates that are no patient's and nobody's."""
