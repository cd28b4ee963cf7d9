//! `/etc/foip.toml`.
