//! The Kubernetes API: objects in, objects out.
