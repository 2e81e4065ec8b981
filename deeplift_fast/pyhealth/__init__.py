"""Attribution of PyHealth models."""
