"""OpenBao and Vault: secrets of the KV version 2 engine, by token or AppRole."""

from chassis.adapters.vault._options import VaultOptions
from chassis.adapters.vault._secrets import VaultSecrets

__all__ = ["VaultOptions", "VaultSecrets"]
