"""The version of the package, and of the API specification it follows."""

__version__ = "0.1.0"
OPENAPI_DOC_VERSION = "2.3.0"
