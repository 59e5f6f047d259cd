"""Secrets for confidential VMs on Phala Cloud, sealed to a key that is proven to be that VM's."""

__version__ = "0.1.0"
