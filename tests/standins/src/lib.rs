//! Stand-ins for netcup and for the Kubernetes API.
