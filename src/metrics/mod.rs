//! Prometheus metrics: the registry and typed handles.
