"""Say and deliver: findings become DICOM objects, and the objects reach PACS byte for byte."""
