"""Telling a report's priority to systems whose worklists read no DICOM header: HL7 v2, UPS-RS, a webhook."""
